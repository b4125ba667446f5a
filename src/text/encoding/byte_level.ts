// The alphabet of byte-level tokenizers: every byte is a visible character. Source: GPT-2's bytes_to_unicode.

/** By byte. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  const visible = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173)
  let others = 0
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : 256 + others++))
})()

const CHARACTER_BYTES: ReadonlyMap<string, number> = new Map(
  BYTE_CHARACTERS.map((character, byte) => [character, byte]),
)
const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** The UTF-8 bytes of a text as characters of the alphabet. */
export function toByteLevel(text: string): string {
  let result = ''
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code >= 128) return result + Array.from(encoder.encode(text.slice(i)), (byte) => BYTE_CHARACTERS[byte]).join('')
    result += BYTE_CHARACTERS[code]
  }
  return result
}

/** Back to a text; a token with a character outside of the alphabet stands for itself, and bytes that are no UTF-8 become U+FFFD. */
export function fromByteLevel(tokens: readonly string[]): string {
  const bytes: number[] = []
  for (const token of tokens) {
    const own = Array.from(token, (character) => CHARACTER_BYTES.get(character))
    if (own.includes(undefined)) for (const byte of encoder.encode(token)) bytes.push(byte)
    else for (const byte of own) bytes.push(byte!)
  }
  return decoder.decode(Uint8Array.from(bytes))
}
