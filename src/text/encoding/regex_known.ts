// The regular expressions of published tokenizers. None of them takes more than time in proportion to the text, so that they may run
// on the engine of JavaScript; all others run on a matcher that counts its steps.

export const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const BLANKS = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const UPPER = '\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}'
const LOWER = '\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}'
const WORDS = `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]*[${LOWER}]+`
const CAPITALS = `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]+[${LOWER}]*`
const SIGNS = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*'

export const KNOWN: readonly string[] = [
  GPT2,
  // Llama 3
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${BLANKS}`,
  // Qwen 2 and 2.5
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${BLANKS}`,
  // Tekken (Mistral) and o200k (Llama 4)
  `${WORDS}|${CAPITALS}|\\p{N}|${SIGNS}|${BLANKS}`,
  `${WORDS}${CONTRACTIONS}?|${CAPITALS}${CONTRACTIONS}?|\\p{N}{1,3}|${SIGNS}|${BLANKS}`,
  // Parts of DeepSeek's and of others
  '\\p{N}{1,3}',
  '\\p{N}',
  '[0-9]',
  '\\d',
  '[\\r\\n]',
  '\\s?\\p{L}+',
  '\\s?\\p{P}+',
  '[一-龥]+',
  '[一-龥\u3040-\u309f\u30a0-\u30ff]+',
]
