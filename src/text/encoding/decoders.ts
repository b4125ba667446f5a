// Tokens back to text. Source: the decoders of Hugging Face tokenizers.
import { fromByteLevel } from './byte_level.ts'
import { readPattern, replaceAll } from './normalizers.ts'
import { prependScheme } from './pre_tokenizers.ts'
import type { Settings } from './settings.ts'

/**
 * Parts that, joined, are the text. In a text that still grows (`partial`) byte tokens that are no UTF-8 together keep the characters that
 * are whole among them; otherwise each becomes U+FFFD, as in Python.
 */
export type Decoder = (tokens: readonly string[], partial: boolean) => string[]

export function makeDecoder(settings: Settings | null): Decoder {
  if (settings === null) return (tokens) => [tokens.join(' ')]
  switch (settings.raw('type')) {
    case 'Sequence': {
      const all = settings.list('decoders').map(makeDecoder)
      return (tokens, partial) => all.reduce<string[]>((parts, decode) => decode(parts, partial), [...tokens])
    }
    case 'ByteLevel':
      return (tokens) => [fromByteLevel(tokens)]
    case 'Replace': {
      const [regex, by] = [readPattern(settings, 'pattern'), settings.text('content')]
      return (tokens) => tokens.map((token) => replaceAll(token, regex, by))
    }
    case 'ByteFallback':
      return byteFallback
    case 'Fuse':
      return (tokens) => [tokens.join('')]
    case 'Strip': {
      const [content, start, stop] = [settings.character('content'), settings.count('start'), settings.count('stop')]
      return (tokens) => tokens.map((token) => strip(Array.from(token), content, start, stop))
    }
    case 'Metaspace': {
      const [sign, scheme] = [settings.character('replacement', '▁'), prependScheme(settings)]
      return (tokens) => {
        return tokens.map((token, i) => token.replaceAll(sign, i === 0 && scheme !== 'never' ? '' : ' '))
      }
    }
    case 'BPEDecoder': {
      const suffix = settings.text('suffix', '</w>')
      return (tokens) => tokens.map((token, i) => token.replaceAll(suffix, i === tokens.length - 1 ? '' : ' '))
    }
    case 'WordPiece': {
      const [prefix, cleans] = [settings.text('prefix', '##'), settings.flag('cleanup', true)]
      return (tokens) => tokens.map((token, i) => wordPiece(token, i, prefix, cleans))
    }
  }
  return settings.refuse('decoder')
}

function byteFallback(tokens: readonly string[], partial: boolean): string[] {
  const parts: string[] = []
  let bytes: number[] = []
  const flush = (): void => {
    if (bytes.length === 0) return
    try {
      parts.push(new TextDecoder('utf-8', { fatal: !partial, ignoreBOM: true }).decode(Uint8Array.from(bytes)))
    } catch {
      for (const _ of bytes) parts.push('\ufffd')
    }
    bytes = []
  }
  for (const token of tokens) {
    const byte = /^<0x([\da-fA-F]{2})>$/.exec(token)?.[1]
    if (byte !== undefined) {
      bytes.push(Number.parseInt(byte, 16))
      continue
    }
    flush()
    parts.push(token)
  }
  flush()
  return parts
}

function strip(characters: readonly string[], content: string, start: number, stop: number): string {
  let [begin, end] = [0, characters.length]
  while (begin < Math.min(start, characters.length) && characters[begin] === content) begin++
  while (characters.length - end < Math.min(stop, characters.length) && characters[end - 1] === content) end--
  return characters.slice(begin, Math.max(begin, end)).join('')
}

function wordPiece(token: string, at: number, prefix: string, cleans: boolean): string {
  let text = token
  if (at > 0) text = token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`
  if (!cleans) return text
  const tidy: [string, string][] = [
    [' .', '.'],
    [' ?', '?'],
    [' !', '!'],
    [' ,', ','],
    [" ' ", "'"],
    [" n't", "n't"],
    [" 'm", "'m"],
    [' do not', " don't"],
    [" 's", "'s"],
    [" 've", "'ve"],
    [" 're", "'re"],
  ]
  return tidy.reduce((done, [from, to]) => done.replaceAll(from, to), text)
}
