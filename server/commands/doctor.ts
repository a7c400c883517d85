import { resolve } from 'node:path'
import type { Command } from 'commander'
import { examine } from '../doctor/doctor.ts'
import type { Finding } from '../doctor/finding.ts'
import { dataCommand, type Surroundings } from './data-command.ts'

interface DoctorCommandOptions {
  readonly data: string
  readonly deep: boolean
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav doctor --data /srv/backups
  chunkdav doctor --data /srv/backups --deep --json

It changes nothing. While no receiver runs on the directory it sees more: the index and the live tree too.
--deep reads and hashes all packs; without it their headers are looked at, and some rows of the index.

Exit codes: 0 no problem (there may be warnings), 1 problems were found, 2 wrong usage.`

/** `chunkdav doctor`. */
export function doctorCommand(surroundings: Surroundings): Command {
  return dataCommand('doctor', 'Say what is wrong with a data directory, and what to do', surroundings)
    .option('--deep', 'read and hash everything that is stored', false)
    .option('--json', 'one JSON object a line; the last one is the summary', false)
    .addHelpText('after', examples)
    .action((options: DoctorCommandOptions) => doctor(options, surroundings))
}

async function doctor({ data, deep, json }: DoctorCommandOptions, { calledAs }: Surroundings): Promise<void> {
  const tell = (finding: Finding): void => {
    if (json) process.stdout.write(`${JSON.stringify({ type: 'finding', ...finding })}\n`)
    else process.stdout.write(shown(finding, calledAs))
  }
  const report = await examine(resolve(data), { deep }, tell)
  const { problems, warnings, vaults, isInUse } = report
  if (problems > 0) process.exitCode = 1
  if (json) {
    const summary = {
      type: 'summary',
      sound: problems === 0,
      problems,
      warnings,
      vaults,
      inUse: isInUse,
      deep,
    }
    process.stdout.write(`${JSON.stringify(summary)}\n`)
    return
  }
  const verdict =
    problems === 0 ? 'No problem found' : `${problems} ${problems === 1 ? 'problem' : 'problems'} found`
  const warned = warnings === 0 ? '' : `, ${warnings} ${warnings === 1 ? 'warning' : 'warnings'}`
  process.stdout.write(`${verdict}${warned}.\n`)
}

function shown({ severity, place, what, todo }: Finding, calledAs: string): string {
  const line = `${severity.padEnd(7)}  ${place}: ${what}\n`
  if (todo === undefined) return line
  const command = calledAs === 'chunkdav' ? todo : todo.replace(/\bchunkdav (?=[a-z])/g, `${calledAs} `)
  return `${line}         → ${command}\n`
}
