/**
 * The search for cuts (cut.ts) in WebAssembly, in memory that threads share: content is read into it, and cut and
 * hashed where it stands. The text of the module is gear-search.wat.
 */
import { type FindCut, gear } from './cut.ts'
import { gearSearchModule } from './gear-search-module.ts'

/** Bytes at the front of the memory that are the search's own. */
export const gearSearchBytes = 64 * 1024

/** Memory of WebAssembly that threads share: it goes to a thread as it is. */
export interface SearchedMemory {
  readonly buffer: SharedArrayBuffer
}

/** What is needed of WebAssembly, which TypeScript knows only together with a browser. */
interface WebAssemblyApi {
  readonly Memory: new (size: { initial: number; maximum: number; shared: true }) => SearchedMemory
  readonly Module: new (bytes: Uint8Array) => object
  readonly Global: new (type: { value: 'i32'; mutable: false }, value: number) => object
  readonly Instance: new (
    module: object,
    imports: object,
  ) => { readonly exports: { readonly search: FindCut } }
}

const { Memory, Module, Global, Instance } = (globalThis as unknown as { WebAssembly: WebAssemblyApi })
  .WebAssembly
const pageBytes = 64 * 1024

/** Shared memory whose first `gearSearchBytes` are the search's; `bytes` follow, for whoever reads content into them. */
export function createSearchedMemory(bytes: number): SearchedMemory {
  const pages = Math.ceil((gearSearchBytes + bytes) / pageBytes)
  const memory = new Memory({ initial: pages, maximum: pages, shared: true })
  new Int32Array(memory.buffer, 0, gear.length).set(gear)
  return memory
}

/** Finds cuts in `memory`, on any thread that it was given to. Offsets are the memory's, behind `gearSearchBytes`, below 2 GiB. */
export function gearSearchIn(memory: SearchedMemory): FindCut {
  const module = new Module(Buffer.from(gearSearchModule, 'base64'))
  const words = new Global({ value: 'i32', mutable: false }, 0)
  return new Instance(module, { host: { memory, gear: words } }).exports.search
}
