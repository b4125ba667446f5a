// The arguments of filters and functions, by place or by name.
import { TemplateError } from './budget.ts'
import { type Named, typeName, type Value } from './values.ts'

/** Puts arguments in the order of the names; throws where one is missing, unknown or given twice. */
export function bind(
  what: string,
  names: readonly string[],
  required: number,
  positional: readonly Value[],
  named: Named,
): (Value | undefined)[] {
  if (positional.length > names.length) {
    throw new TemplateError(`${what}() takes at most ${names.length} arguments (${positional.length} given)`)
  }
  const bound: (Value | undefined)[] = names.map((_, i) => positional[i])
  for (const [name, value] of named) {
    const at = names.indexOf(name)
    if (at < 0) throw new TemplateError(`${what}() got an unexpected keyword argument '${name}'`)
    if (at < positional.length) throw new TemplateError(`${what}() got multiple values for argument '${name}'`)
    bound[at] = value
  }
  const lacking = bound.findIndex((value, i) => i < required && value === undefined)
  if (lacking >= 0) throw new TemplateError(`${what}() missing 1 required argument: '${names[lacking]}'`)
  return bound
}

export function wholeNumber(value: Value): number {
  if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value)
  throw new TemplateError(`'${typeName(value)}' object cannot be interpreted as an integer`)
}
