// The embedded models by name: from the package in Node; in a page from a server, and then from the browser's own storage.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type EmbeddedOptions, loadRewardModel, openDevice, openEmbedded } from '../src/index.ts'
import { fails } from './assert.ts'

const inPage = 'document' in globalThis
const where: EmbeddedOptions = inPage ? { base: '/models/' } : {}
const ROW = { prompt: 'How was the film?', response: 'A delight.' }

/** Requests for files of models that the page has made. */
const requests = () =>
  inPage ? performance.getEntriesByType('resource').filter(({ name }) => name.includes('/models/')).length : 0

test('a model of the package loads by its name, a second time without a request', async () => {
  const device = await openDevice('wasm', { threads: 1 })
  const scores: unknown[] = []
  const counts: number[] = []
  let bytes = 0
  for (let visit = 0; visit < 2; visit++) {
    const before = requests()
    const files = await openEmbedded('nano', {
      ...where,
      onProgress: (now) => {
        bytes = Math.max(bytes, now.bytes)
      },
    })
    const model = await loadRewardModel(device, files)
    scores.push(await model.score([ROW]))
    counts.push(requests() - before)
    await model.destroy()
  }
  assert.equal(scores[0], scores[1])
  if (inPage) {
    assert.ok(counts[0]! > 0 && counts[0]! <= 12 && counts[1] === 0, `requests: ${counts}`)
    assert.ok(bytes > 5e6)
  }
  assert.ok(await (await openEmbedded('nano-sft', inPage ? { base: '/models/' } : {})).open('adapter_config.json'))
  await fails(() => openEmbedded('micro' as 'nano'), 'embedded models: must be one of nano, nano-sft, got "micro"')
  await device.destroy()
})

test.run()
