/**
 * `npm run work:measure`: does the work a few times, half of them beside busy processes, and writes what it took
 * to budgets.ts. Look at the difference before it is committed: every number that rose is work that was not done before.
 *
 *     npm run work:measure -- [ROUNDS]
 */
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { type Budget, budgetsOf } from './budget.ts'
import { type Counts, runScenario, type Steps } from './scenario.ts'
import { hasStrace } from './system-calls.ts'

const path = new URL('budgets.ts', import.meta.url)
const rounds = Number(process.argv[2] ?? 6)
const busy = `while (performance.now() < 600_000);`

if (!hasStrace) throw new Error('install strace: without it there is no count of system calls')
const runs: Steps[] = []
for (let round = 0; round < rounds; round++) {
  const others = round % 2 === 0 ? [] : [0, 1].map(() => spawn(process.execPath, ['-e', busy]))
  try {
    runs.push(await runScenario())
    console.log(`round ${round + 1} of ${rounds}`)
  } finally {
    for (const other of others) other.kill('SIGKILL')
  }
}
const [head = ''] = readFileSync(path, 'utf8').split(/^export const budgets/m)
writeFileSync(path, `${head}export const budgets: Readonly<Record<string, Budgets>> = {\n${table()}}\n`)

function table(): string {
  const steps = Object.keys(runs[0] ?? {})
  return steps
    .map((step) => {
      const counts = runs.map((run): Counts => run[step] ?? {})
      const lines = Object.entries(budgetsOf(counts)).map(
        ([name, budget]) => `    '${name}': ${shown(budget)},\n`,
      )
      return `  ${/^\w+$/.test(step) ? step : `'${step}'`}: {\n${lines.join('')}  },\n`
    })
    .join('')
}

function shown(budget: Budget): string {
  const digits = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, '_')
  const grouped = (count: number): string => (count < 10_000 ? String(count) : digits(count))
  return typeof budget === 'number' ? grouped(budget) : `[${budget.map(grouped).join(', ')}]`
}
