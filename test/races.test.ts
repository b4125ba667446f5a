// Searches every shader for data races and divergent barriers: a workgroup's threads in lock step, at tiny sizes.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { detectRaces } from 'wgsl_reflect/wgsl_reflect.module.js'
import type { TensorData } from '../src/device/tensor.ts'
import { type Algorithm, type KernelName, kernels } from '../src/generated/kernels.ts'
import { shaderTexts } from '../src/generated/shader_texts.ts'
import { close, tolerance } from './assert.ts'
import { allowed, cases, expect, makeCall, numbersOf } from './cases.ts'
import type { Sizes } from './reference/ops.ts'

declare module 'wgsl_reflect/wgsl_reflect.module.js' {
  type Binding = Float32Array | Uint32Array | { uniform: ArrayBuffer }
  /** Interprets the grid; storage buffers are computed in place. */
  export function detectRaces(
    code: string,
    kernel: string,
    dispatch: readonly number[],
    bindGroups: Record<number, Record<number, Binding>>,
  ): { races: { message: string }[]; errors: string[] }
}

interface Search {
  readonly sizes: Sizes
  /** Interpret so many workgroups only; the others' results stay NaN. */
  readonly groups?: number
  /** The interpreter does not wrap products of u32: results are not compared, only races searched. */
  readonly wraps?: boolean
  /** Edits that make the shader smaller and leave its result: [text that occurs once, replacement]. */
  readonly smaller?: readonly (readonly [string, string])[]
}

const TILED: Search = { sizes: { N: 2, D: 3, O: 3 }, smaller: [['const DEPTH = 32u', 'const DEPTH = 2u']] }
const VEC: Search = { sizes: { N: 2, D: 9, O: 3 }, smaller: [['const WG = 32u', 'const WG = 8u']] }
const COLUMNS: Search = { sizes: { N: 9, D: 2, O: 2 }, smaller: [['const COLUMNS = 32u', 'const COLUMNS = 2u']] }
const ROWS: Search = { sizes: { N: 2, D: 5 }, smaller: [['const WG = 64u', 'const WG = 4u']] }

/**
 * The kernels with barriers: small enough for an interpreter, large enough that every loop with a barrier goes round twice.
 * The others are searched at their smallest size.
 */
const SEARCHES: Partial<Record<Algorithm, Search>> = {
  // The last part of the last block alone: two tiles of keys, two of channels, and two threads that share four queries.
  attention: {
    sizes: { Q: 64, N: 66, H: 1, C: 5, G: 1, B: 1 },
    groups: 1,
    smaller: [
      ['const DEPTH = 32u', 'const DEPTH = 3u'],
      ['C <= 64u', 'C <= 4u'],
    ],
  },
  // Three tiles of keys, and two channels of a thread. The interpreter gets `stored4_at` of f16 wrong: too few channels for it.
  attention_decode: { sizes: { N: 1, H: 1, C: 3, M: 5, W: 6 }, smaller: [['const WG = 64u', 'const WG = 2u']] },
  // Two tiles of keys or queries, and two threads that share four queries or keys.
  attention_grad_key_value: {
    sizes: { N: 18, H: 1, C: 5, G: 1, B: 1 },
    groups: 1,
    smaller: [['C <= 64u', 'C <= 4u']],
  },
  attention_grad_query: {
    sizes: { N: 50, H: 1, C: 5, G: 1, B: 1 },
    groups: 1,
    smaller: [['C <= 64u', 'C <= 4u']],
  },
  batch_norm_grad: COLUMNS,
  batch_norm_stats: COLUMNS,
  bias_grad: COLUMNS,
  bradley_terry: { sizes: { B: 2, M: 5 }, smaller: [['const WG = 32u', 'const WG = 4u']] },
  dropout: { sizes: { N: 2, D: 5 }, wraps: true },
  clip_factor: { sizes: { P: 9 }, smaller: [['const WG = 256u', 'const WG = 4u']] },
  linear: TILED,
  cross_entropy: { sizes: { R: 2, B: 9 }, smaller: [['const WG = 128u', 'const WG = 4u']] },
  linear_grad_input: TILED,
  linear_grad_input_add: TILED,
  linear_grad_weight: { ...TILED, sizes: { N: 3, D: 3, O: 2 } },
  linear_grad_weight_add: { ...TILED, sizes: { N: 3, D: 3, O: 2 } },
  linear_vec: VEC,
  rms_norm: ROWS,
  rms_norm_grad: ROWS,
  softmax: ROWS,
  softmax_grad: ROWS,
  square_sums: {
    sizes: { N: 14, P: 3, first: 1 },
    smaller: [
      ['const WG = 256u', 'const WG = 4u'],
      ['const BLOCK = 4096u', 'const BLOCK = 16u'],
    ],
  },
}

const NAMES = Object.keys(kernels) as KernelName[]
const texts = await shaderTexts()
const searchOf = (name: KernelName): Search | undefined => SEARCHES[kernels[name].algorithm]
const BARRIER = 'workgroupBarrier();'

function makeSmaller(name: KernelName): string {
  let code = texts[name]
  for (const [text, replacement] of searchOf(name)?.smaller ?? []) {
    assert.is(code.split(text).length, 2, `${name}: "${text}" must occur once`)
    code = code.replace(text, replacement)
  }
  return inlineFunctions(code)
}

/**
 * Puts the bodies of helper functions in the place of their calls: in lock step, the interpreter of wgsl_reflect 1.6 gives all
 * threads the arguments of the last one. A helper is one return statement, maybe behind names for its terms (let), or statements
 * without a return.
 */
function inlineFunctions(code: string): string {
  const helper = /^fn (\w+)\(([^)]*)\)(?: -> \w+)? \{\n(.*?)^\}\n/ms
  for (let found = helper.exec(code); found && found[1] !== 'main'; found = helper.exec(code)) {
    const [definition, name, parameters, body] = found as unknown as [string, string, string, string]
    const names = parameters.split(',').map((parameter) => parameter.split(':')[0]!.trim())
    code = code.replace(definition, '')
    for (let call = findCall(code, name); call; call = findCall(code, name)) {
      const value = returned(body)
      const text = value
        ? `(${value.replace(/\b\w+\b/g, (word) => (names.includes(word) ? `(${call!.args[names.indexOf(word)]})` : word))})`
        : `{ ${names.map((word, i) => `let ${word}_ = ${call!.args[i]};`).join(' ')} { ${names.map((word) => `let ${word} = ${word}_;`).join(' ')} ${body} } }`
      code = code.slice(0, call.begin) + text + code.slice(value ? call.end : call.end + 1)
    }
  }
  return code
}

/** What a helper returns, with each `let` in the place of its name; undefined if it returns nothing. */
function returned(body: string): string | undefined {
  const [, lets, value] =
    /^((?:\s*let \w+ = [^;]*;)*)\s*return ([^;]*);\n$/.exec(body.replace(/^\s*\/\/.*\n/gm, '')) ?? []
  return [...(lets ?? '').matchAll(/let (\w+) = ([^;]*);/g)].reduceRight(
    (text, [, name, term]) => text?.replace(new RegExp(`\\b${name}\\b`, 'g'), `(${term})`),
    value,
  )
}

/** The first call of a function: where it stands and its arguments. */
function findCall(code: string, name: string): { begin: number; end: number; args: string[] } | null {
  const begin = new RegExp(`\\b${name}\\(`).exec(code)?.index
  if (begin === undefined) return null
  const args = ['']
  let depth = 0
  for (let end = begin + name.length; ; end++) {
    const char = code[end]!
    if (char === ')' && --depth === 0) return { begin, end: end + 1, args }
    if (char === ',' && depth === 1) args.push('')
    else if (depth > 0) args[args.length - 1] += char
    if (char === '(') depth++
  }
}

/** Runs one kernel in the interpreter: what it finds, and the tensors after the call. */
function search(name: KernelName, code: string) {
  const spec = kernels[name]
  const call = makeCall(name, allowed(name, searchOf(name)?.sizes ?? cases[name].sizes[0]!))
  const words = new Uint32Array(Math.ceil((spec.letters.length + spec.scalars.length) / 4) * 4)
  const floats = new Float32Array(words.buffer)
  spec.letters.forEach((letter, i) => {
    words[i] = call.sizes[letter]!
  })
  spec.scalars.forEach(({ name: scalar, type }, i) => {
    const target = type === 'f32' ? floats : words
    target[spec.letters.length + i] = call.sizes[scalar]!
  })
  const memory: Record<string, TensorData> = {}
  const bindings: Parameters<typeof detectRaces>[3][number] = { [spec.tensors.length]: { uniform: words.buffer } }
  spec.tensors.forEach(({ name: tensor }, i) => {
    const { data } = call.tensors[tensor]!
    // Buffers are whole vectors of four words.
    const bytes = new Uint8Array(Math.ceil(data.byteLength / 16) * 16)
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    const buffer = data instanceof Float32Array ? new Float32Array(bytes.buffer) : new Uint32Array(bytes.buffer)
    memory[tensor] =
      data instanceof Uint16Array ? new Uint16Array(bytes.buffer, 0, data.length) : buffer.subarray(0, data.length)
    bindings[i] = buffer
  })
  const { groups } = searchOf(name) ?? {}
  const dispatch = groups === undefined ? spec.dispatch(call.sizes) : [groups]
  return { call, memory, ...detectRaces(code, 'main', dispatch, { 0: bindings }) }
}

for (const name of NAMES) {
  const code = makeSmaller(name)
  test(`${name} is free of races`, () => {
    const { call, memory, races, errors } = search(name, code)
    assert.equal([...new Set(races.map(({ message }) => message))], [])
    assert.equal(errors, [])
    if (searchOf(name)?.wraps) return
    // The interpreter computed the right thing; otherwise it had nothing to search.
    const longestSum = 1 + cases[name].longestSum(call.sizes)
    for (const [tensor, all] of Object.entries(expect(name, call))) {
      const found = numbersOf(name, tensor, memory[tensor]!)
      const ran = (_: number, i: number) => searchOf(name)?.groups === undefined || !Number.isNaN(found[i])
      const expected = all.filter(ran)
      assert.ok(expected.length > 0)
      close(found.filter(ran), expected, tolerance(longestSum, expected, 32), tensor)
    }
  })

  const barriers = code.split(BARRIER).length - 1
  for (let which = 0; which < barriers; which++) {
    test(`${name} without barrier ${which + 1} of ${barriers} races`, () => {
      let at = -1
      const broken = code.replaceAll(BARRIER, (barrier) => (++at === which ? '' : barrier))
      assert.ok(search(name, broken).races.length > 0)
    })
  }
}

test('the kernels with barriers are searched where these matter', () => {
  const shared = NAMES.filter((name) => texts[name].includes(BARRIER)).map((name) => kernels[name].algorithm)
  assert.equal(
    [...new Set(shared)],
    Object.keys(SEARCHES)
      .filter((name) => !SEARCHES[name as Algorithm]!.wraps)
      .sort(),
  )
})

test.run()
