// Conversations to tokens by the model's own chat template, with the variables that transformers gives it.
import { show } from '../files/json.ts'
import { compile, type Template } from './jinja/template.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface Message {
  readonly role: string
  readonly content: string
}

/**
 * What leads the tokens: `template` exactly what the template renders, `none` no BOS token, `one` exactly one. Reward models
 * differ here: the authors of QRM trained without BOS, their model cards score with one.
 */
export type BosPolicy = 'none' | 'one' | 'template'

// Templates are compiled once per tokenizer.
const compiled = new WeakMap<Tokenizer, Template>()

/**
 * Renders a conversation to text. The template sees messages, add_generation_prompt, the special tokens, no tools, no
 * documents, strftime_now and raise_exception. Throws when the tokenizer has no template or the template refuses.
 * What it renders is what Python's jinja2 renders in transformers; what has no counterpart here is refused by name.
 */
export function renderText(tokenizer: Tokenizer, messages: readonly Message[], addGenerationPrompt: boolean): string {
  const { name, chatTemplate, specialTokens } = tokenizer
  if (chatTemplate === null) {
    throw new Error(`${name}: the tokenizer has no chat template; give rows with "input_ids"`)
  }
  try {
    let template = compiled.get(tokenizer)
    if (template === undefined) {
      template = compile(chatTemplate)
      compiled.set(tokenizer, template)
    }
    return template.render({
      ...specialTokens,
      messages: messages.map(({ role, content }) => ({ role, content })),
      tools: null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
    })
  } catch (error) {
    // What nests without an end runs out of stack.
    const reason = error instanceof RangeError ? 'nests too deeply' : (error as Error).message
    throw new Error(`${name}: the chat template refused the messages: ${show(reason)}`)
  }
}

/**
 * Renders a conversation to token ids [T]. Text inside a message that spells a special token becomes that token, as in
 * transformers: whoever scores untrusted text may want to refuse it first.
 */
export function renderChat(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  options: { bos: BosPolicy; addGenerationPrompt?: boolean },
): Uint32Array<ArrayBuffer> {
  const tokens = tokenizer.encode(renderText(tokenizer, messages, options.addGenerationPrompt ?? false))
  return options.bos === 'template' ? tokens : withBos(tokens, tokenizer, options.bos)
}

/**
 * Renders a conversation whose last answer is not over: what the template puts behind the answer is left out, such as the end of the
 * turn.
 */
export function renderOpenChat(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  answer: string,
  { bos }: { bos: BosPolicy },
): Uint32Array<ArrayBuffer> {
  const head = renderText(tokenizer, messages, true)
  const whole = renderText(tokenizer, [...messages, { role: 'assistant', content: answer }], false)
  // Templates may trim what is said.
  const said = whole.startsWith(head + answer) ? answer : answer.trim()
  const tokens = tokenizer.encode(head + said)
  return bos === 'template' ? tokens : withBos(tokens, tokenizer, bos)
}

function withBos(tokens: Uint32Array<ArrayBuffer>, tokenizer: Tokenizer, policy: 'none' | 'one') {
  const { bos, name } = tokenizer
  if (bos === null) {
    if (policy === 'none') return tokens
    throw new Error(`${name}: the bos policy "one" needs a bos_token in tokenizer_config.json, there is none`)
  }
  let leading = 0
  while (leading < tokens.length && tokens[leading] === bos) leading++
  if (policy === 'none') return tokens.slice(leading)
  const framed = new Uint32Array(tokens.length - leading + 1)
  framed[0] = bos
  framed.set(tokens.subarray(leading), 1)
  return framed
}
