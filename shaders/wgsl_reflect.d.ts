// The part of wgsl_reflect that the generator and the race search use; the package's ES module comes without types.
declare module 'wgsl_reflect/wgsl_reflect.module.js' {
  export interface TypeInfo {
    readonly name: string
    getTypeName(): string
  }
  export interface VariableInfo {
    readonly name: string
    readonly group: number
    readonly binding: number
    readonly access: string
    readonly type: TypeInfo
  }
  export interface StructInfo {
    readonly name: string
    readonly members: readonly { readonly name: string; readonly type: TypeInfo }[]
  }
  export class WgslReflect {
    constructor(code: string)
    readonly storage: readonly VariableInfo[]
    readonly uniforms: readonly VariableInfo[]
    readonly structs: readonly StructInfo[]
    readonly entry: { readonly compute: readonly { readonly name: string }[] }
  }
}
