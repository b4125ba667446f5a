// CPU threads that the system ends: an error that names them, never a wait without end.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { fails } from './assert.ts'

/** Ends a thread of a device that `open` makes, as a system without memory does. */
async function openWithout(open: () => Promise<Device>): Promise<{ device: Device; kill: () => void }> {
  const started: { terminate(): unknown }[] = []
  const page = globalThis as unknown as { Worker: new (url: string) => { terminate(): unknown } }
  if ('document' in globalThis) {
    // The first device of a page tries whether a worker starts, with one more.
    await (await open()).destroy()
    const Original = page.Worker
    page.Worker = class extends Original {
      constructor(url: string) {
        super(url)
        started.push(this)
      }
    }
    const begun = async () =>
      (await navigator.locks.query()).held!.map(({ name }) => name!).filter((name) => name.startsWith('pinball'))
    const before = await begun()
    const device = await open()
    page.Worker = Original
    // One that ends before it has begun holds nobody up, and no page hears of it.
    const ours = async () => (await begun()).filter((name) => !before.includes(name)).length
    while ((await ours()) < started.length) await new Promise((resolve) => setTimeout(resolve, 20))
    return { device, kill: () => started.at(-1)!.terminate() }
  }
  // Named by a variable, for the bundle of the page does not have it.
  const threads = 'node:worker_threads'
  const { Worker } = (await import(threads)) as { Worker: { prototype: { postMessage(message: unknown): void } } }
  const { postMessage } = Worker.prototype
  Worker.prototype.postMessage = function (message) {
    started.push(this as unknown as { terminate(): unknown })
    postMessage.call(this, message)
  }
  const device = await open()
  Worker.prototype.postMessage = postMessage
  return { device, kill: () => started.at(-1)!.terminate() }
}

test('a thread that ends before its time is an error of every wait, with its number', async () => {
  for (const waiting of [true, false]) {
    const { device, kill } = await openWithout(() => openDevice('wasm', { threads: 3 }))
    // A page without shared memory has no threads.
    if (!device.description.endsWith('3 threads')) {
      assert.is((globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated, false)
      continue
    }
    const x = device.tensor([1, 4], { data: Float32Array.of(-1, 2, -3, 4) })
    device.run('relu', { x })
    assert.equal([...(await x.read())], [0, 2, 0, 4])
    const message =
      /^wasm: thread 3 of 3: (ended before its time \(exit code [01]\)|was ended by the browser); open the device again/
    const busy = device.tensor([2 ** 22], { data: new Float32Array(2 ** 22) })
    // It ends while it computes, or between two tasks, which nobody would notice but for the message; Chromium gives it two seconds.
    const work = async (): Promise<void> => {
      for (const until = performance.now() + 30_000; performance.now() < until; await device.done())
        device.run('fma', { x: busy }, { rounds: 500 })
    }
    if (waiting) setTimeout(kill, 10)
    else kill()
    await fails(work, message)
    await fails(() => device.done(), message)
    await fails(() => busy.read(), message)
    await fails(() => device.run('relu', { x }), message)
    await device.destroy()
  }
})

test.run()
