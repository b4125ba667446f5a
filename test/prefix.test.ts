// Beginnings that sequences share: which are found, the batches made of them, the packed rows and the blocks of attention.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { pack, planBlocks } from '../src/llama/pack.ts'
import { groupPrefixes, type PrefixGroup } from '../src/llama/prefix.ts'
import { type Batch, planBatches } from '../src/reward/batches.ts'
import { random } from './random.ts'

const numbers = random(1)
const tokens = (length: number): Uint32Array<ArrayBuffer> => numbers.integers(length, 0, 1000)
const joined = (...parts: ArrayLike<number>[]): Uint32Array<ArrayBuffer> =>
  Uint32Array.from(parts.flatMap((part) => Array.from(part)))

/** Prompts with several responses each, behind one system prompt, in no order. */
function conversations(prompts: number, responses: number): Uint32Array<ArrayBuffer>[] {
  const system = tokens(20)
  const rows = Array.from({ length: prompts }, () => joined(system, tokens(60))).flatMap((prompt) =>
    Array.from({ length: responses }, (_, i) => joined(prompt, tokens(10 + i))),
  )
  return rows
    .map((row) => ({ row, key: numbers.next() }))
    .sort((a, b) => a.key - b.key)
    .map(({ row }) => row)
}

/** Tokens that are computed: those of a beginning once. */
function computed(rows: readonly Uint32Array[], groups: readonly PrefixGroup[]): number {
  return groups.reduce(
    (sum, { members, common }) => members.reduce((all, i) => all + rows[i].length - common, sum + common),
    0,
  )
}

/** Throws unless every row is in one group, and the members of each begin with the same tokens and keep one more. */
function checkGroups(rows: readonly Uint32Array[], groups: readonly PrefixGroup[], most: number): void {
  assert.equal(
    groups.flatMap(({ members }) => members).sort((a, b) => a - b),
    [...rows.keys()],
  )
  for (const group of groups) {
    const { members, common } = group
    if (members.length === 1) assert.is(common, 0)
    else assert.ok(computed(rows, [group]) <= most, `${computed(rows, [group])} tokens of ${most}`)
    for (const i of members) {
      assert.ok(rows[i].length > common)
      assert.equal(rows[i].subarray(0, common), rows[members[0]].subarray(0, common))
    }
  }
}

test('responses to one prompt are found in any order, and not what all prompts share alone', () => {
  const rows = conversations(6, 5)
  const groups = groupPrefixes(rows, 2000)
  checkGroups(rows, groups, 2000)
  assert.equal(
    groups.map(({ members, common }) => [members.length, common]),
    new Array(6).fill([5, 80]),
  )
  // One response each: the system prompt is what is left to share.
  const single = conversations(7, 1)
  assert.equal(
    groupPrefixes(single, 2000).map(({ members, common }) => [members.length, common]),
    [[7, 20]],
  )
})

test('equal rows share all but their last token, a row that goes on from another all but its last', () => {
  const row = tokens(50)
  const rows = [row, joined(row), joined(row, tokens(3))]
  assert.equal(groupPrefixes(rows, 500), [{ members: [0, 1, 2], common: 49 }])
})

test('short beginnings are not shared, nor is a group larger than it may be', () => {
  const short = tokens(15)
  const apart = [joined(short, [1], tokens(5)), joined(short, [2], tokens(5))]
  assert.equal(
    groupPrefixes(apart, 500).map(({ common }) => common),
    [0, 0],
  )
  const long = tokens(100)
  const rows = Array.from({ length: 9 }, (_, i) => joined(long, [i], tokens(29)))
  const groups = groupPrefixes(rows, 200)
  checkGroups(rows, groups, 200)
  assert.equal(
    groups.map(({ members }) => members.length),
    [3, 3, 3],
  )
  assert.equal(
    groupPrefixes(rows, 100).map(({ common }) => common),
    new Array(9).fill(0),
  )
  assert.equal(groupPrefixes([], 100), [])
})

test('random trees of rows: valid groups that save as much as the best cut of the sorted rows', () => {
  for (let round = 0; round < 60; round++) {
    let rows = [tokens(1 + numbers.integers(1, 0, 40)[0])]
    for (let i = 0; i < 8; i++) {
      const from = rows[numbers.integers(1, 0, rows.length)[0]]
      const keep = numbers.integers(1, 0, from.length + 1)[0]
      rows.push(joined(from.subarray(0, keep), tokens(1 + numbers.integers(1, 0, 30)[0])))
    }
    rows = rows.filter(({ length }) => length > 0)
    const groups = groupPrefixes(rows, 1e6)
    checkGroups(rows, groups, 1e6)
    const all = rows.reduce((sum, { length }) => sum + length, 0)
    const saved = all - computed(rows, groups)
    const best = bestSaving(rows)
    assert.ok(saved <= best && saved >= 0.75 * best, `round ${round}: ${saved} of ${best}`)
  }
})

/** The most that groups of neighbours in the order of tokens can save, by trying all of them. */
function bestSaving(rows: readonly Uint32Array[]): number {
  const text = (row: Uint32Array) => Array.from(row, (token) => String(token).padStart(4, '0')).join()
  const sorted = [...rows].sort((a, b) => (text(a) < text(b) ? -1 : 1))
  const best = [0]
  for (let end = 1; end <= sorted.length; end++) {
    best[end] = best[end - 1]
    for (let first = 0; first < end - 1; first++) {
      const run = sorted.slice(first, end)
      let common = 0
      const most = Math.min(...run.map(({ length }) => length)) - 1
      while (common < most && run.every((row) => row[common] === run[0][common])) common++
      if (common >= 16) best[end] = Math.max(best[end], best[first] + (end - first - 1) * common)
    }
  }
  return best[sorted.length]
}

test('batches hold every row once, within the budget, the longest first', () => {
  const check = (rows: readonly Uint32Array[], budget: number, share: boolean): Batch[] => {
    const batches = planBatches(rows, budget, share)
    assert.equal(
      batches.flatMap(({ indices }) => indices).sort((a, b) => a - b),
      [...rows.keys()],
    )
    for (const { indices, groups } of batches) {
      const own = indices.map((i) => rows[i])
      const longest = Math.max(...rows.map(({ length }) => length))
      checkGroups(own, groups, 2 * Math.max(budget, longest))
      const size = computed(own, groups)
      assert.ok(groups.length === 1 || size <= budget, `${groups.length} groups of ${size} tokens at ${budget}`)
    }
    const order = batches.flatMap(({ groups, indices }) =>
      groups.map(({ members }) => Math.max(...members.map((i) => rows[indices[i]].length))),
    )
    assert.equal(
      order,
      [...order].sort((a, b) => b - a),
    )
    return batches
  }
  const rows = [
    ...conversations(20, 4),
    ...Array.from({ length: 120 }, () => tokens(1 + numbers.integers(1, 0, 90)[0])),
  ]
  for (const budget of [1, 64, 100, 1000, 1e9]) {
    const shared = check(rows, budget, true)
    const apart = check(rows, budget, false)
    assert.ok(apart.every(({ groups }) => groups.every(({ common }) => common === 0)))
    if (budget >= 100) assert.ok(shared.flatMap(({ groups }) => groups).some(({ common }) => common === 80))
  }
  assert.is(planBatches(rows, 1e9, true).length, 1)
  assert.equal(planBatches([], 10, true), [])
})

test('packed rows and blocks lead every token to the tokens before it', () => {
  const rows = conversations(3, 4)
  rows.push(tokens(130), tokens(1))
  const groups = groupPrefixes(rows, 2000)
  const packed = pack(rows, groups)
  assert.is(packed.rows, computed(rows, groups))
  const place = (row: number, t: number) => packed.rowOf(row, t)
  for (const [s, row] of rows.entries()) {
    for (const [t, token] of row.entries()) {
      assert.equal([packed.tokens[place(s, t)], packed.position[place(s, t)]], [token, t])
    }
  }
  const check = (chosen: Uint32Array, heads: number): void => {
    const plan = planBlocks(packed, chosen, heads)
    const keys: number[][] = []
    for (let b = 0; b < plan.length; b += 6) {
      const [first, count, prefix, ahead, own, position] = plan.subarray(b, b + 6)
      assert.is(first, keys.length)
      assert.ok(count >= 1 && count <= 64)
      for (let i = 0; i < count; i++) {
        const length = ahead + position + i + 1
        keys.push(Array.from({ length }, (_, j) => (j < ahead ? prefix + j : own + j - ahead)))
      }
    }
    assert.is(keys.length, chosen.length)
    for (const [s, row] of rows.entries()) {
      for (const t of row.keys()) {
        const query = chosen.indexOf(place(s, t))
        if (query >= 0)
          assert.equal(
            keys[query],
            Array.from({ length: t + 1 }, (_, j) => place(s, j)),
          )
      }
    }
  }
  const all = Uint32Array.from({ length: packed.rows }, (_, row) => row)
  for (const heads of [1, 8, 64]) check(all, heads)
  check(
    all.filter((row) => row % 3 !== 1),
    4,
  )
  check(Uint32Array.from(rows, (row, s) => place(s, row.length - 1)).sort(), 8)
})

test.run()
