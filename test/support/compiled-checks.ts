/**
 * Compiles the schemas that nearly every command of the client, and what it asks the receiver for, is checked with:
 * `node test/support/compiled-checks.ts` writes protocol/compiled-checks.ts anew.
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Ajv2020 } from 'ajv/dist/2020.js'
import standalone from 'ajv/dist/standalone/index.js'
import * as schemas from '../../protocol/schema.ts'

/** A pattern of ids, as ajv writes it. */
const idPattern = /(const pattern\d+ = )new RegExp\("\^\(blake3\|sha256\):[^"]*", "u"\)/g

const compiled = [
  'BatchAnswer',
  'Capabilities',
  'CheckpointList',
  'CheckpointState',
  'CommitRequest',
  'DirectoryObject',
  'FetchRequest',
  'FileObject',
  'ItemsRequest',
  'MissingAnswer',
  'MissingRequest',
  'OpenRequest',
] as const

/** Schemas within others become references, so that each is compiled once. */
function withReferences(names: ReadonlyMap<unknown, string>, schema: unknown, isOuter = true): unknown {
  if (typeof schema !== 'object' || schema === null) return schema
  const name = names.get(schema)
  if (!isOuter && name !== undefined) return { $ref: name }
  if (Array.isArray(schema)) return schema.map((each) => withReferences(names, each, false))
  return Object.fromEntries(
    Object.entries(schema).map(([keyword, value]) => [keyword, withReferences(names, value, false)]),
  )
}

/** The text of the module. */
export function compileChecks(): string {
  const named = Object.entries(schemas).filter(([, value]) => typeof value === 'object')
  const names = new Map<unknown, string>(named.map(([name, schema]) => [schema, name]))
  const ajv = new Ajv2020({ ...schemas.ajvOptions, inlineRefs: false, code: { source: true, esm: true } })
  // No schema has a keyword that would ask which properties another one has looked at: the first of a union that fits is enough.
  ajv.opts.unevaluated = false
  for (const [name, schema] of named) ajv.addSchema(withReferences(names, schema) as object, name)
  const code = standalone.default(ajv, Object.fromEntries(compiled.map((name) => [name, name])))
  const body = code
    .replace('"use strict";', '')
    // The schemas themselves stand there too, most of them for nothing.
    .replaceAll(/const (schema\d+) = \{.*?\};(?=const|function|export)/g, (line, name) =>
      code.split(new RegExp(`\\b${name}\\b`)).length > 2 ? line : '',
    )
    .replaceAll(idPattern, '$1{ test: isId }')
    .replaceAll(/;(?=(?:const|function|export) )/g, ';\n')
  return `// @ts-nocheck
/** Schemas of schema.ts, compiled by ajv through test/support/compiled-checks.ts: not to be edited. */
import { createRequire } from 'node:module'
import { isId } from './id.ts'

const require = createRequire(import.meta.url)
${body}
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../../protocol/compiled-checks.ts', import.meta.url), compileChecks())
}
