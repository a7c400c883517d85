/** Compiles protocol/gear-search.wat: `node test/support/gear-search-module.ts` writes protocol/gear-search-module.ts anew. */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import loadWabt from 'wabt'

const folder = new URL('../../protocol/', import.meta.url)

/** The module in base64. Throws with the line of the text that is wrong. */
export async function compileGearSearch(): Promise<string> {
  const wabt = await loadWabt()
  const text = readFileSync(new URL('gear-search.wat', folder), 'utf8')
  const module = wabt.parseWat('gear-search.wat', text, { threads: true })
  try {
    ;(module.validate as (features: object) => void).call(module, { threads: true })
    return Buffer.from(module.toBinary({}).buffer).toString('base64')
  } finally {
    module.destroy()
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const lines = (await compileGearSearch()).match(/.{1,96}/g) as string[]
  writeFileSync(
    new URL('gear-search-module.ts', folder),
    `/** protocol/gear-search.wat, compiled by test/support/gear-search-module.ts: not to be edited. */
export const gearSearchModule =
${lines.map((line) => `  '${line}'`).join(' +\n')}
`,
  )
}
