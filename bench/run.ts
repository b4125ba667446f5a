// npm run bench -- <subject> [options]: runs one benchmark; the last line of its output is one JSON document.
import { readdirSync } from 'node:fs'

const folder = new URL('.', import.meta.url)
const subjects = readdirSync(folder)
  .filter((file) => file.endsWith('.ts') && !['run.ts', 'measure.ts'].includes(file))
  .map((file) => file.replace('.ts', ''))

const [subject, ...rest] = process.argv.slice(2)
if (!subject || subject === '--help' || !subjects.includes(subject)) {
  console.error(`usage: npm run bench -- <${subjects.join(' | ')}> [options]`)
  process.exit(subject === '--help' ? 0 : 2)
}
const { main } = (await import(new URL(`${subject}.ts`, folder).href)) as { main: (args: string[]) => Promise<void> }
await main(rest)
