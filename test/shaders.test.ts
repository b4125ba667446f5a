// Every shader through Tint on Dawn's null back end, with all optional features and with none, and the checks of the headers.
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readKernels } from '../shaders/generate.ts'
import { compileExpression } from '../shaders/header.ts'
import { requestNullAdapter } from '../src/device/webgpu/dawn.ts'
import { type Algorithm, type KernelName, kernels } from '../src/generated/kernels.ts'
import { shaderTexts } from '../src/generated/shader_texts.ts'
import { fails } from './assert.ts'

const NAMES = Object.keys(kernels) as KernelName[]
const texts = await shaderTexts()
const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')

/** Opens a device of the null back end with all features of its adapter, or with none; limits stay at WebGPU's defaults. */
async function openNull(everything: boolean): Promise<GPUDevice> {
  const { adapter, features } = await requestNullAdapter()
  return adapter.requestDevice({ requiredFeatures: everything ? (features as GPUFeatureName[]) : [] })
}

/** Compiles a shader; what Tint or the pipeline has to say against it, with file, line and column. */
async function compile(device: GPUDevice, name: string, code: string): Promise<string[]> {
  device.pushErrorScope('validation')
  const module = device.createShaderModule({ label: `${name}.wgsl`, code })
  const { messages } = await module.getCompilationInfo()
  const complaints = messages.map(
    ({ type, lineNum, linePos, message }) => `${name}.wgsl:${lineNum}:${linePos} ${type}: ${message}`,
  )
  device.createComputePipeline({ label: name, layout: 'auto', compute: { module, entryPoint: 'main' } })
  const error = await device.popErrorScope()
  if (error && complaints.length === 0) complaints.push(`${name}.wgsl: ${error.message}`)
  return complaints
}

for (const everything of [true, false]) {
  test(`all shaders compile with ${everything ? 'every optional feature' : 'none'}`, async () => {
    const device = await openNull(everything)
    // A feature that Tint must refuse without, so that "none" means something.
    const half = await compile(device, 'half', 'enable f16; @compute @workgroup_size(1) fn main() { _ = f16(1); }')
    assert.is(half.length === 0, everything, half.join())
    for (const name of NAMES) assert.equal(await compile(device, name, texts[name]), [])
    device.destroy()
  })
}

test('complaints come with file, line and column', async () => {
  const device = await openNull(false)
  assert.match(
    (await compile(device, 'add', texts.add.replace('x[i] +=', 'z[i] +='))).join(),
    /^add\.wgsl:\d+:\d+ error: unresolved value 'z'/,
  )
  const large = texts.softmax.replace('array<f32, WG>', 'array<f32, 4097>')
  assert.match((await compile(device, 'softmax', large)).join(), /workgroup storage/)
  device.destroy()
})

test('every shader has a twin, and a whole text of each of its kernels', () => {
  const names = (folder: string, ending: string) =>
    readdirSync(new URL(`../${folder}`, import.meta.url))
      .filter((file) => file.endsWith(ending))
      .map((file) => file.slice(0, -ending.length))
      .sort()
  const algorithms = [...new Set(NAMES.map((name) => kernels[name].algorithm))].sort()
  assert.equal(names('shaders', '.wgsl'), algorithms)
  assert.equal(names('assembly/kernels', '.ts'), algorithms)
  assert.equal(names('src/generated/shaders', '.wgsl'), [...NAMES].sort())
  for (const name of NAMES) assert.is(texts[name], read(`src/generated/shaders/${name}.wgsl`), name)
})

test('one-dimensional grids may be folded', () => {
  for (const name of NAMES) {
    const { dispatch, letters } = kernels[name]
    const sizes = Object.fromEntries(letters.map((letter) => [letter, 1000]))
    // A single workgroup, whatever the sizes, is a grid that is never folded.
    if (dispatch(sizes).length > 1 || dispatch(sizes)[0] === 1) continue
    assert.ok(texts[name].includes('wg.y * groups.x + wg.x'), `${name} must take its group from wg.y * groups.x + wg.x`)
  }
})

/** Reads the kernels of a shader after an edit of its text or of its twin. */
function edited(name: Algorithm, from: string, to: string, twinFrom = '', twinTo = ''): () => unknown {
  const file = `shaders/${name}.wgsl`
  const [code, twin] = [read(file), read(`assembly/kernels/${name}.ts`)]
  assert.ok(code.includes(from) && twin.includes(twinFrom), `${name}: nothing to edit`)
  return () => readKernels(file, code.replace(from, to), twin.replace(twinFrom, twinTo))
}

test('a header that disagrees with its shader is refused', async () => {
  assert.not.throws(edited('rms_norm', '', ''))
  await fails(edited('rms_norm', '// weight  [D]', '// gain    [D]'), /rms_norm\.wgsl: the text never uses gain/)
  await fails(edited('rms_norm', '// weight  [D]', '// weight  [D]  f23'), /weight: a type is one of .*, found "f23"/)
  await fails(
    edited('rms_norm', 'const WG', '@group(0) @binding(0) var<storage> x: f32;\nconst WG'),
    /made from the header/,
  )
  await fails(edited('rms_norm', '// split     N\n', ''), /exactly one split line/)
  await fails(
    edited('rms_norm', '// weight  [D]', '// weight  [K / 4]'),
    /weight: K \/ 4 needs a tensor before it that has K/,
  )
  await fails(
    edited('rms_norm', '// weight  [D]', '// weight  [2D]'),
    /a dimension is one capital letter, .* found "2D"/,
  )
  await fails(edited('linear', ' bf16', ' q9_9'), /linear\.wgsl: there is no shaders\/parts\/widen_q9_9\.wgsl/)
  await fails(edited('linear', 'uses      tile', 'uses      tales'), /there is no shaders\/parts\/tales\.wgsl/)
  await fails(
    edited('linear', '// x       [N, D]', '// x       [N, D]  f32 f16'),
    /one tensor may list .*, found x, weight/,
  )
})

test('expressions of a header know its letters and constants', async () => {
  const compile = (text: string) => compileExpression('add.wgsl', text, ['N'], { WG: 64 })
  assert.is(compile('ceil(N / WG)'), 'Math.ceil ( s.N / 64 )')
  await fails(() => compile('ceil(B / WG)'), /add\.wgsl: "ceil\(B \/ WG\)" uses "B", which is no shape letter/)
})

test('a header lists the features that its shader needs', async () => {
  const needs = (line: string) =>
    (edited('add', '// dispatch', `${line}\n// dispatch`)() as ReturnType<typeof readKernels>)[0]!.header.needs
  assert.equal(needs('//'), [])
  assert.equal(needs('// needs     shader-f16, subgroups   a remark'), ['shader-f16', 'subgroups'])
  await fails(() => needs('// needs     f16!'), /add\.wgsl: needs lists features of WebGPU, .* found "f16!"/)
  await fails(() => needs('// needs     subgroups\n// needs     shader-f16'), /at most one needs line, found 2/)
  // What a kernel needs is what its shader enables.
  for (const name of NAMES) {
    const enabled = [...texts[name].matchAll(/^enable ([\w, ]+);/gm)].flatMap(([, list]) => list!.split(/, */))
    const features = enabled.map((extension) => (extension === 'f16' ? 'shader-f16' : extension.replaceAll('_', '-')))
    assert.equal([...kernels[name].needs].sort(), features.sort(), name)
  }
})

test('a twin whose signature disagrees is refused', async () => {
  await fails(edited('rms_norm', '', '', 'x: usize', 'z: usize'), /the header asks for \(x: usize/)
  await fails(edited('rms_norm', '', '', 'eps: f32', 'eps: f64'), /the header asks for/)
  await fails(
    edited('linear', '', '', 'weight_scale: usize,', ''),
    /the header asks for .*weight: usize, weight_scale: usize/,
  )
})

test.run()
