// The stages of a model of one's own (own_model.ts), over one folder.
import type { Device } from '../device/device.ts'
import type { FileRecord } from '../files/records.ts'
import { closeSources, type Source } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { assemble } from '../reward/assemble.ts'
import { calibrate, readUncalibrated } from '../reward/calibrate.ts'
import { readCheckpoint } from '../reward/checkpoint.ts'
import { CALIBRATION_FILE, encodeCalibration } from '../reward/conformal.ts'
import { debiasHeads } from '../reward/debias.ts'
import { type FeatureFileOptions, findFeatures, makeFeatures } from '../reward/feature_files/make.ts'
import { readFeatureRows } from '../reward/feature_files/rows.ts'
import { type FeatureModel, loadFeatureModel } from '../reward/features.ts'
import { loadHeads } from '../reward/heads.ts'
import { headsCheckpoint, writeHeads } from '../reward/heads_directory.ts'
import { encodeHeads, type HeadsFile, readHeadsFile } from '../reward/heads_file.ts'
import { openPairs } from '../reward/pair_file.ts'
import { openRatings } from '../reward/rating_file.ts'
import { stateRows } from '../reward/state_rows.ts'
import { fitHeads } from '../train/heads.ts'
import { ratingsProblem } from '../train/problem.ts'
import { trainGate } from '../train/recipes.ts'
import type { OwnModelOptions, OwnModelReport } from './own_model.ts'
import { measurePairs } from './pair_results.ts'
import { scorePairFeatures } from './pair_scores.ts'
import type { PairAccuracy } from './pairs.ts'
import { evaluateCalibration, quantilesOfFeatures, ratingsByAttribute } from './rated_quantiles.ts'
import type { Stages } from './stages.ts'

const REPORT = 'report.json'

/** The stages, over one folder. */
export class OwnModelRun {
  readonly #device: Device
  readonly #options: OwnModelOptions
  readonly #stages: Stages
  readonly #labels: readonly string[]
  readonly #fingerprint: string
  readonly #features: Store
  readonly #heads: Store
  readonly #reward: Store
  #model: FeatureModel | null = null

  constructor(
    device: Device,
    options: OwnModelOptions,
    stages: Stages,
    labels: readonly string[],
    fingerprint: string,
  ) {
    this.#device = device
    this.#options = options
    this.#stages = stages
    this.#labels = labels
    this.#fingerprint = fingerprint
    this.#features = options.out.folder('features')
    this.#heads = options.out.folder('heads')
    this.#reward = options.out.folder('reward')
  }

  async close(): Promise<void> {
    await this.#model?.destroy()
    this.#model = null
  }

  /** Features of some rows; gives the SHA-256 of their file. */
  async features(name: string, records: readonly FileRecord[], labels: readonly string[]): Promise<string> {
    const { dtype, maxLength, skipInvalid, restart, signal, onNote, onRows, onStage, backbone, out } = this.#options
    signal?.throwIfAborted()
    const rows = await readFeatureRows(records, { labels: present(records, labels), skipInvalid, name })
    const target: FeatureFileOptions = {
      ...{ store: this.#features, file: `${name}.safetensors`, partial: out.folder(`features-${name}.partial`) },
      ...{ dtype, maxLength, signal, onDamage: onNote, onProgress: onRows },
    }
    const there = await findFeatures(rows, target, async () => this.#fingerprint)
    onStage?.(`features of ${name}`, there !== null)
    if (there !== null) return there.sha256
    this.#model ??= await loadFeatureModel(this.#device, backbone)
    const { manifest, skipped } = await makeFeatures(
      { ...this.#model, fingerprint: async () => this.#fingerprint },
      rows,
      { ...target, restart },
    )
    if (skipped.length > 0) onNote?.(`${skipped.length} rows of ${name} are left out; the first: ${skipped[0].reason}`)
    return manifest.sha256
  }

  async fit(files: Readonly<Record<string, string>>): Promise<void> {
    const { unit, levels, alpha, intercept, threads, restart, signal, onLevels, onNote, out } = this.#options
    const settings = { features: files.fit, labels: this.#labels, unit, levels, alpha, intercept }
    await this.#stages.run('fit', settings, this.#heads, async () => {
      const store = out.folder('heads.partial')
      await this.#with(['fit'], async (sources) => {
        const problem = ratingsProblem(await openRatings(sources), { hash: files.fit })
        const heads = await fitHeads(problem, {
          ...{ unit, levels, alpha, intercept, threads, restart, signal, store, onNote },
          onProgress: onLevels,
        })
        const missed = heads.fits.filter(({ status }) => status !== 'optimal').length
        if (missed > 0) onNote?.(`${missed} of ${heads.fits.length} levels missed the tolerance`)
        await this.#heads.write('heads.safetensors', encodeHeads(heads))
        await heads.end()
      })
      return ['heads.safetensors']
    })
  }

  /** Takes an attribute out of the others; gives the name of the file. */
  async debias(files: Readonly<Record<string, string>>, unwanted: string): Promise<string> {
    const reference = 'pairs' in files ? 'pairs' : 'fit'
    const settings = { unwanted, features: files[reference], ...(await this.#stages.files('fit', this.#heads)) }
    await this.#stages.run('debias', settings, this.#heads, async () => {
      await this.#with([reference], async (sources) => {
        const found = await debiasHeads(
          this.#device,
          await this.#readHeads('heads.safetensors'),
          await stateRows(sources),
          {
            attribute: unwanted,
            signal: this.#options.signal,
            onProgress: this.#options.onSteps,
          },
        )
        await this.#heads.write('debiased.safetensors', encodeHeads(found.heads))
      })
      return ['debiased.safetensors']
    })
    return 'debiased.safetensors'
  }

  /** A gate over the heads; the training keeps itself. */
  async gate(file: string): Promise<void> {
    const { gate, seed, restart, signal, onNote, onSteps, onStage } = this.#options
    const heads = await this.#readHeads(file)
    await this.#with(['pairs'], async (sources) => {
      const pairs = await openPairs(sources)
      const { finished } = await trainGate(this.#device, pairs, heads, {
        ...{ ...gate, seed, restart, signal, onNote, store: this.#reward },
        onProgress: ({ step, steps }) => onSteps?.('steps', step, steps),
      })
      onStage?.('gate', finished)
    })
  }

  /** Fixed weights in its place. */
  async weigh(file: string): Promise<void> {
    const { weights } = this.#options
    const heads = await this.#readHeads(file)
    await this.#stages.run('weights', { weights, heads: heads.fileHash }, this.#reward, async () => {
      await writeHeads(headsCheckpoint(heads, weights), this.#reward)
      return (await this.#reward.list()).filter((name) => name !== CALIBRATION_FILE)
    })
  }

  async calibrate(files: Readonly<Record<string, string>>): Promise<void> {
    const { unit, signal, onSteps } = this.#options
    const model = await this.#reward.digest('model.safetensors')
    await this.#stages.run('calibrate', { features: files.calibrate, model, unit }, this.#reward, async () => {
      await this.#with(['calibrate'], async (sources) => {
        const checkpoint = await readUncalibrated(this.#reward)
        const found = await calibrate(this.#device, checkpoint, await openRatings(sources), {
          unit,
          signal,
          onProgress: onSteps,
        })
        await this.#reward.write(CALIBRATION_FILE, encodeCalibration(found))
      })
      return [CALIBRATION_FILE]
    })
  }

  async assemble(): Promise<void> {
    const { backbone, out } = this.#options
    const store = out.folder('model')
    const parts = ['model.safetensors', 'pinball.json', CALIBRATION_FILE]
    const digests = Object.fromEntries(await Promise.all(parts.map(async (name) => [name, await this.#optional(name)])))
    const before = await this.#stages.files('assemble', store)
    await this.#stages.run('assemble', digests, store, async () => {
      // What an earlier call has made, and nobody has changed.
      for (const name of Object.keys(before ?? {})) await store.remove(name)
      return (await assemble(backbone, this.#reward, store)).files
    })
  }

  async #optional(name: string): Promise<string | null> {
    return (await this.#reward.list()).includes(name) ? this.#reward.digest(name) : null
  }

  async evaluate(
    files: Readonly<Record<string, string>>,
    { gated, pairs }: { readonly gated: boolean; readonly pairs: boolean },
  ): Promise<OwnModelReport> {
    const { out, unit, weights } = this.#options
    const settings = {
      ...{ unit, test: files.test, reference: files.fit, pairs: files.test_pairs ?? null },
      ...{ model: await this.#optional('model.safetensors'), calibration: await this.#optional(CALIBRATION_FILE) },
    }
    await this.#stages.run('evaluate', settings, out, async () => {
      const { alpha } = (await this.#readHeads('heads.safetensors')).metadata ?? {}
      const report: OwnModelReport = {
        attributes: this.#labels,
        rows: await this.#rowCounts(Object.keys(files)),
        unit,
        alpha: JSON.parse(alpha ?? 'null'),
        ...(await this.#measure()),
        pairs: pairs && 'test_pairs' in files ? await this.#measurePairs() : null,
        weights: gated ? 'gate' : weights,
      }
      await out.write(REPORT, [new TextEncoder().encode(`${JSON.stringify(report, null, 1)}\n`)])
      return [REPORT]
    })
    return this.#read(out, REPORT, async (source) => {
      const text = new TextDecoder().decode(await source.read(0, source.byteLength))
      return JSON.parse(text) as OwnModelReport
    })
  }

  async #rowCounts(names: readonly string[]): Promise<Record<string, number>> {
    const counts: Record<string, number> = {}
    for (const name of names) {
      await this.#with([name], async (sources) => {
        const pairs = name.endsWith('pairs')
        counts[name] = pairs ? (await openPairs(sources)).pairs : (await openRatings(sources)).features.rows
      })
    }
    return counts
  }

  async #measure() {
    const { unit } = this.#options
    return this.#with(['test', 'fit'], async ([test, fit]) => {
      const checkpoint = await readCheckpoint(this.#reward)
      const [ratings, reference] = [await openRatings([test]), ratingsByAttribute(await openRatings([fit]))]
      const measured = async (calibration: boolean) => {
        const found = await quantilesOfFeatures(this.#device, checkpoint, ratings, { calibration })
        return evaluateCalibration(found, reference, { unit })
      }
      return { calibrated: await measured(true), plain: await measured(false) }
    })
  }

  async #measurePairs() {
    const heads = await loadHeads(this.#device, this.#reward)
    try {
      return await this.#with(['test_pairs'], async (sources) => {
        const scores = await scorePairFeatures(this.#device, heads, await openPairs(sources))
        const { result } = measurePairs(scores, 'pairs')
        return result as PairAccuracy
      })
    } finally {
      heads.destroy()
    }
  }

  #readHeads(file: string): Promise<HeadsFile> {
    return this.#read(this.#heads, file, readHeadsFile)
  }

  async #read<T>(store: Store, file: string, work: (source: Source) => Promise<T>): Promise<T> {
    const source = await store.open(file)
    if (source === null) throw new Error(`${store.name}/${file}: is missing; --restart makes it anew`)
    return work(source).finally(() => source.close())
  }

  /** Opens files of features, by name, and closes them. */
  async #with<T>(names: readonly string[], work: (sources: readonly Source[]) => Promise<T>): Promise<T> {
    const sources: Source[] = []
    try {
      for (const name of names) {
        const source = await this.#features.open(`${name}.safetensors`)
        if (source === null)
          throw new Error(`${this.#features.name}/${name}.safetensors: is missing; run the same command again`)
        sources.push(source)
      }
      return await work(sources)
    } finally {
      await closeSources(sources)
    }
  }
}

/** Labels that some row of a part has: of a rare attribute a small part may have none. */
function present(records: readonly FileRecord[], labels: readonly string[]): string[] {
  return labels.filter((label) => records.some(({ value }) => label in value))
}
