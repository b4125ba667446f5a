// Rows of training to tokens: plain texts and conversations, and where in a conversation the assistant speaks.
import { digest } from '../files/hash.ts'
import { parseJsonObject, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { parseLlamaConfig } from '../llama/config.ts'
import { readManifest } from '../reward/manifest.ts'
import { type Padding, paddingOf, pooledLength, textPlaces } from '../reward/padding.ts'
import { copyIds, idList } from '../reward/token_ids.ts'
import { type BosPolicy, type Message, renderChat, renderText } from '../text/chat.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'

/** What of a model the encoding of rows depends on. */
export interface TextRules {
  /** What errors about the model call it. */
  readonly name: string
  readonly tokenizer: Tokenizer | null
  /** Of conversations; plain texts get what the tokenizer itself puts around a text. */
  readonly bos: BosPolicy
  /** V: token ids are below it. */
  readonly vocab: number
  /** Rows of more tokens are dropped. */
  readonly maxLength: number
  /** Leaves out rows that are not valid, rather than throw; called with why. */
  readonly onInvalid?: (reason: string) => void
  /** Absent or null: the model has none. */
  readonly padding?: Padding | null
}

/**
 * Reads what the encoding of rows needs of a model directory; rows that are longer than the model takes are too long, whatever
 * `maxLength` says.
 */
export async function openTextRules(files: ModelFiles, maxLength: number): Promise<TextRules> {
  const { name } = files
  const where = `${name}/config.json`
  const text = await readText(files, 'config.json')
  if (text === null) throw new Error(`${where}: is missing; give the folder of a Llama checkpoint`)
  const config = parseLlamaConfig(parseJsonObject(text, where), where)
  const [tokenizer, { bos, gatePattern }] = [await loadTokenizer(files), await readManifest(files)]
  const padding = paddingOf(config, tokenizer, gatePattern)
  return { name, tokenizer, bos, vocab: config.vocab, maxLength: Math.min(maxLength, config.maxPosition), padding }
}

/** Tokens [begin, end). */
export type Span = readonly [begin: number, end: number]

/** The tokenizer; throws where there is none. */
export function tokenizerOf({ name, tokenizer }: TextRules): Tokenizer {
  if (tokenizer !== null) return tokenizer
  throw new Error(`${name} has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"`)
}

/** Checks token ids and copies them; `what` is what errors call them. */
export function readIds(ids: unknown, { vocab }: TextRules, what: string): Uint32Array<ArrayBuffer> {
  const list = idList(ids)
  if (list === null || list.length === 0)
    throw new Error(`${what} must be a list of at least one token id, got ${show(ids)}`)
  return copyIds(list, vocab, what)
}

/** As `readIds`, without the padding, for rows whose last token is read. */
export function readRow(ids: unknown, rules: TextRules, what: string): Uint32Array<ArrayBuffer> {
  const tokens = readIds(ids, rules, what)
  const places = textPlaces(tokens, rules.padding)
  return places === null ? tokens : Uint32Array.from(places, (place) => tokens[place])
}

/** Tokens of a text up to the last that is no padding, where a reward is read. */
export function pooledTokens(tokens: Uint32Array<ArrayBuffer>, { padding }: TextRules): Uint32Array<ArrayBuffer> {
  const length = pooledLength(tokens, padding)
  return length === tokens.length ? tokens : tokens.slice(0, length)
}

/** Length of what two sequences begin with alike. */
export function commonPrefix(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const least = Math.min(a.length, b.length)
  let length = 0
  while (length < least && a[length] === b[length]) length++
  return length
}

/** A text with EOS at its end, once. */
function ended(text: string, { name, specialTokens }: Tokenizer): string {
  const eos = specialTokens.eos_token
  if (eos === undefined)
    throw new Error(`${name}: plain texts end with eos_token, and tokenizer_config.json names none`)
  return text.endsWith(eos) ? text : text + eos
}

/** Tokens of a plain text, framed by the tokenizer, with EOS at its end. */
export function plainTokens(text: string, rules: TextRules): Uint32Array<ArrayBuffer> {
  const tokenizer = tokenizerOf(rules)
  return readIds(tokenizer.encode(ended(text, tokenizer), { framed: true }), rules, 'tokens')
}

/**
 * Tokens of a prompt with its completion as plain texts, one after the other. The completion begins where the tokens of both differ
 * from those of the prompt alone: a token that stands across the border belongs to it.
 */
export function plainCompletion(prompt: string, completion: string, rules: TextRules) {
  const tokenizer = tokenizerOf(rules)
  const tokens = plainTokens(prompt + ended(completion, tokenizer), rules)
  const begin = commonPrefix(tokenizer.encode(prompt, { framed: true }), tokens)
  return { tokens, spans: [[begin, tokens.length] as Span] }
}

/** Tokens of a conversation as its template renders it. */
export function chatTokens(messages: readonly Message[], rules: TextRules): Uint32Array<ArrayBuffer> {
  return readIds(renderChat(tokenizerOf(rules), messages, { bos: rules.bos }), rules, 'tokens')
}

/** Tokens of a prompt with its completion as conversations; the completion is what the tokens do not share with the prompt alone. */
export function chatCompletion(prompt: readonly Message[], completion: readonly Message[], rules: TextRules) {
  const tokenizer = tokenizerOf(rules)
  const tokens = chatTokens([...prompt, ...completion], rules)
  const begin = commonPrefix(renderChat(tokenizer, prompt, { bos: rules.bos, addGenerationPrompt: true }), tokens)
  return { tokens, spans: [[begin, tokens.length] as Span] }
}

/**
 * Tokens of a conversation, and a span for every message of the assistant with its end of turn. The borders are found by rendering
 * the beginnings of the conversation; throws where the template renders a beginning in another way than the whole.
 */
export function chatTurns(messages: readonly Message[], rules: TextRules) {
  const tokenizer = tokenizerOf(rules)
  const tokens = chatTokens(messages, rules)
  const text = renderText(tokenizer, messages, false)
  /** Where in the text the first messages end. */
  const place = (count: number, addGenerationPrompt: boolean): number => {
    if (count === messages.length) return text.length
    const head = renderText(tokenizer, messages.slice(0, count), addGenerationPrompt)
    if (text.startsWith(head)) return head.length
    throw new Error(
      `${tokenizer.name}: the chat template renders the first ${count} messages in another way than at the beginning of all ` +
        `${messages.length}, so that it cannot be told what the assistant said; give "prompt" and "completion", "input_ids" and "labels", or --loss all`,
    )
  }
  const places: Span[] = []
  for (const [i, { role }] of messages.entries()) {
    if (role === 'assistant') places.push([place(i, true), place(i + 1, false)])
  }
  // The same but for a BOS policy, which adds or takes away tokens before all others.
  const whole = rules.bos === 'template' ? tokens : tokenizer.encode(text)
  const shift = tokens.length - whole.length
  const before = tokenBorders(text, places.flat(), whole, tokenizer)
  const border = (at: number): number => Math.max(0, before(at) + shift)
  return { tokens, spans: places.map(([begin, end]): Span => [border(begin), border(end)]) }
}

/** How many of a text's tokens stand before a place in it; one that stands across it does not count. */
function tokenBorders(
  text: string,
  places: readonly number[],
  whole: Uint32Array,
  tokenizer: Tokenizer,
): (place: number) => number {
  const cuts = [...new Set([...places, text.length])].sort((a, b) => a - b)
  const known = new Map<number, number>()
  const pieces: number[] = []
  let from = 0
  for (const cut of cuts) {
    for (const token of tokenizer.encode(text.slice(from, cut))) pieces.push(token)
    known.set(cut, pieces.length)
    from = cut
  }
  // Where the pieces give the same tokens as the whole, none stands across a cut.
  const apart = pieces.length === whole.length && commonPrefix(pieces, whole) === whole.length
  return (place) => (apart ? known.get(place)! : commonPrefix(tokenizer.encode(text.slice(0, place)), whole))
}

/** SHA-256 over rows as words of 32 bits. */
export async function hashWords(rows: readonly (Int32Array | Uint32Array)[]): Promise<string> {
  const hashes: string[] = []
  for (const row of rows) hashes.push(await digest(new Uint8Array(row.slice().buffer)))
  return digest(new TextEncoder().encode(hashes.join(' ')))
}
