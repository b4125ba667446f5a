// Which names a parsed template uses.
import { TemplateError } from './budget.ts'
import type { FilterCall, Statement } from './syntax.ts'

/** Whether a name is read anywhere in statements. */
export function uses(node: unknown, name: string): boolean {
  if (Array.isArray(node)) return node.some((part) => uses(part, name))
  if (typeof node !== 'object' || node === null) return false
  const { kind, name: own } = node as { kind?: string; name?: unknown }
  if (kind === 'name' && own === name) return true
  return Object.entries(node).some(([key, part]) => key !== 'target' && uses(part, name))
}

/** Throws where a filter or a test is used that there is none of, but where a condition may keep it from being reached. */
export function checkNames(
  body: readonly Statement[],
  known: { readonly filters: ReadonlySet<string>; readonly tests: ReadonlySet<string> },
): void {
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) {
      for (const part of node) visit(part)
      return
    }
    if (typeof node !== 'object' || node === null) return
    const { kind, filter, filters, test } = node as {
      kind?: string
      filter?: FilterCall
      filters?: FilterCall[]
      test?: FilterCall
    }
    if (kind === 'if' || kind === 'choice') return
    for (const { name } of [...(filters ?? []), ...(filter ? [filter] : [])]) {
      if (!known.filters.has(name)) throw new TemplateError(`No filter named '${name}'.`)
    }
    if (kind === 'test' && !known.tests.has(test!.name)) throw new TemplateError(`No test named '${test!.name}'.`)
    for (const part of Object.values(node)) visit(part)
  }
  visit(body)
}
