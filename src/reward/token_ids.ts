// Token ids as rows give them: checked one by one and copied.
import { show } from '../files/json.ts'

/** The list of ids, or null where it is none. */
export function idList(ids: unknown): ArrayLike<unknown> | null {
  return Array.isArray(ids) || ids instanceof Uint32Array ? ids : null
}

/** Checks that ids are below `vocab` and copies them; `what` is what errors call their list. */
export function copyIds(ids: ArrayLike<unknown>, vocab: number, what: string): Uint32Array<ArrayBuffer> {
  const tokens = new Uint32Array(ids.length)
  for (let i = 0; i < tokens.length; i++) {
    const token = ids[i]
    if (!Number.isSafeInteger(token) || (token as number) < 0 || (token as number) >= vocab) {
      throw new Error(`${what}[${i}] must be a whole number from 0 to ${vocab - 1} (vocab_size), got ${show(token)}`)
    }
    tokens[i] = token as number
  }
  return tokens
}
