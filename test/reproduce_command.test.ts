// pinball reproduce and the small world of pinball start, as child processes: files, interrupts, refusals.
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { finish, openWorkplace, type Workplace } from './command.ts'

/** All cores: results do not depend on how many there are. */
const DEVICE = ['--device', 'wasm']
const FIGURE = ['reproduce', 'figure3', '--seeds', '1', '--steps', '3', '--samples', '1', ...DEVICE]
const TWO = ['--policies', 'neutral,risk-aware']
const FILES = [
  'calibration.svg',
  'figure1.svg',
  'figure3-estimate.svg',
  'figure3-truth.svg',
  'figures.json',
  'overoptimisation.svg',
  'report.html',
]

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
})
test.after(() => place.remove())

const read = (...path: string[]) => readFile(join(place.folder, ...path), 'utf8')

test('figure3: files, a document, and the same bytes after an interrupt', async () => {
  const whole = await place.pinball([...FIGURE, ...TWO, '--out', 'whole', '--json'])
  assert.equal([whole.code, whole.err.replace(/^pinball: seed 1 of 1.*\n/gm, '')], [0, ''])
  const document = JSON.parse(whole.out)
  assert.equal([document.out, [...document.files].sort()], ['whole', FILES])
  assert.equal(
    document.runs.map(({ seed, policy }: { seed: number; policy: string }) => `${policy} ${seed}`),
    ['neutral 1', 'risk-aware 1'],
  )
  assert.equal((await readdir(join(place.folder, 'whole'))).sort(), [...FILES, 'stages'].sort())
  const { out, files, ...figure } = document
  assert.equal(JSON.parse(await read('whole', 'figures.json')), figure, `${out}: ${files}`)

  const child = place.launch([...FIGURE, ...TWO, '--out', 'cut'])
  const ended = finish(child)
  const reached = join(place.folder, 'cut/stages/run-1-neutral.part')
  while (!existsSync(reached) && child.exitCode === null) await sleep(20)
  child.kill('SIGINT')
  const { code, err } = await ended
  assert.is(code, 130, err)
  assert.match(
    err,
    /pinball: figure3: interrupted; what is finished is kept in cut; the same command goes on from there\n$/,
  )
  assert.not(existsSync(join(place.folder, 'cut/report.html')))
  const rest = await place.pinball([...FIGURE, ...TWO, '--out', 'cut'])
  assert.is(rest.code, 0, rest.err)
  assert.match(rest.out, /\nrisk-aware less neutral: true left tail .*one seed: no intervals.*\ncut: .*report\.html/)
  for (const file of FILES) assert.is(await read('cut', file), await read('whole', file), file)

  // Models that other commands read.
  const scored = await place.pinball([
    ...['score', '--model', 'whole/stages/reward-1', '--prompt', 'how was the soup ?', ...DEVICE],
    ...['--response', 'the soup was gentle honest', '--response', 'the soup was rotten cheap', '--json'],
  ])
  assert.is(scored.code, 0, scored.err)
  const [good, bad] = JSON.parse(scored.out).results
  assert.ok(good.score > bad.score + 0.3, `${good.score} and ${bad.score}`)

  await place.refused(
    [...FIGURE, ...TWO, '--lr', '0.01', '--out', 'cut'],
    /cut\/stages\/pinball-work\.json: was begun with --lr 0\.003, now it is 0\.01; use the same, or give --restart/,
  )
  await writeFile(join(place.folder, 'cut/figure1.svg'), 'mine')
  await place.refused(
    [...FIGURE, ...TWO, '--out', 'cut'],
    'cut/figure1.svg: is not what Pinball wrote there; move it away',
  )
  assert.is(await read('cut', 'figure1.svg'), 'mine')
})

test('figure3: what it refuses', async () => {
  await place.refused(
    ['reproduce', 'figure2'],
    /'figure2' is invalid for argument 'figure'\. Allowed choices are figure3\./,
    2,
  )
  await place.refused(
    [...FIGURE, '--policies', 'bold'],
    /--policies: must be some of neutral, risk-aware.*got "bold"/,
    2,
  )
  await place.refused([...FIGURE, '--k', '1'], /'--k <n>' argument '1' is invalid/, 2)
  await mkdir(join(place.folder, 'other/stages'), { recursive: true })
  await writeFile(join(place.folder, 'other/stages/mine.txt'), 'mine')
  await place.refused(
    [...FIGURE, '--out', 'other'],
    /other\/stages: must be missing, empty or hold work of "reproduce figure3", it has "mine\.txt"/,
  )
})

test('start: reviews, then two policies side by side, and a report', async () => {
  const first = await place.pinball(['start', ...DEVICE])
  assert.is(first.code, 0, first.err)
  assert.match(first.out, /^The embedded model knows something about the sentiment of English sentences/)
  assert.match(first.out, /\nprompt +fine-tuned +neutral +risk-aware\n/)
  const row = (name: string) => {
    const found = new RegExp(`\\n${name} +([+−]\\d\\.\\d+) +([+−]\\d\\.\\d+) `).exec(first.out)
    assert.ok(found, name)
    return found.slice(1).map((text) => Number(text.replace('−', '-')))
  }
  const [[neutral], [averse]] = [row('neutral'), row('risk-aware')]
  assert.ok(averse > neutral + 0.15, `left tails: neutral ${neutral}, risk-aware ${averse}`)
  assert.match(first.out, /\nThe report with its plots: pinball-start\/report\.html\n/)
  assert.match(await read('pinball-start', 'report.html'), /^<!doctype html>/)
  // A second call shows what is there.
  const second = await place.pinball(['start', ...DEVICE])
  const told = (out: string) => out.replace(/\nDone in .*/, '')
  assert.equal([second.code, told(second.out)], [0, told(first.out)])
})

test.run()
