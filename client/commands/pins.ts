/** `chunkdav pin|unpin|forget URL SOURCE/N` */
import type { Command } from 'commander'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { type CheckpointName, formatCheckpointName } from '../../protocol/url.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { selectCheckpoint } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import {
  checkpointArgument,
  parseCheckpointArgument,
  receiverArgument,
  shownTime,
  withReceiver,
} from './receiver-command.ts'
import { jsonOption } from './vault-command.ts'

const pinExamples = `
Examples:
  chunkdav pin http://127.0.0.1:8420/home laptop/3
  chunkdav unpin http://127.0.0.1:8420/home laptop/3

A pinned backup is kept whatever the policy says, and cannot be deleted.`

const unpinExamples = `
Example:
  chunkdav unpin http://127.0.0.1:8420/home laptop/3`

const forgetExamples = `
Examples:
  chunkdav forget http://127.0.0.1:8420/home laptop/3
  chunkdav forget http://127.0.0.1:8420/home laptop/3 --yes

It is gone for good, the last one of a source too, and what others share with it stays. An open backup, which was never
finished, can be deleted as well. To remove many, set a policy: chunkdav policy.`

/** Adds `pin`, `unpin` and `forget` to the program. */
export function registerPins(program: Command, context: CommandContext): void {
  program
    .command('pin')
    .description('Keep a backup, whatever the policy says')
    .argument(...receiverArgument)
    .argument(...checkpointArgument)
    .option(...jsonOption, false)
    .addHelpText('after', pinExamples)
    .action((url: string, name: string, options: { json: boolean }) => {
      return pin(url, name, true, options, context)
    })
  program
    .command('unpin')
    .description('Let the policy decide about a backup again')
    .argument(...receiverArgument)
    .argument(...checkpointArgument)
    .option(...jsonOption, false)
    .addHelpText('after', unpinExamples)
    .action((url: string, name: string, options: { json: boolean }) => {
      return pin(url, name, false, options, context)
    })
  program
    .command('forget')
    .description('Delete one backup')
    .argument(...receiverArgument)
    .argument(...checkpointArgument)
    .option('-y, --yes', 'do not ask', false)
    .option(...jsonOption, false)
    .addHelpText('after', forgetExamples)
    .action((url: string, name: string, options: { yes: boolean; json: boolean }) => {
      return forget(url, name, options, context)
    })
}

async function pin(
  url: string,
  text: string,
  isPinned: boolean,
  { json }: { json: boolean },
  context: CommandContext,
): Promise<void> {
  const name = parseCheckpointArgument(text)
  await withReceiver(url, context, async (client) => {
    try {
      if (isPinned) await client.pinCheckpoint(name, context)
      else await client.unpinCheckpoint(name, context)
    } catch (error) {
      throw await explained(error, name, client, context)
    }
    if (json)
      context.emit({ type: 'summary', source: name.source, checkpoint: name.number, pinned: isPinned })
    else context.say(`${formatCheckpointName(name)} is ${isPinned ? 'pinned' : 'not pinned any more'}.`)
  })
}

async function forget(
  url: string,
  text: string,
  { yes, json }: { yes: boolean; json: boolean },
  context: CommandContext,
): Promise<void> {
  const name = parseCheckpointArgument(text)
  const shown = formatCheckpointName(name)
  if (!yes && context.confirm === undefined) {
    throw new Problem('usage', `nobody can be asked here; to delete ${shown} for good add --yes`)
  }
  await withReceiver(url, context, async (client) => {
    const { signal } = context
    let isGone: boolean
    try {
      const { committedAt, openedAt, state } = await client.getCheckpoint(name, { signal })
      const when = shownTime(committedAt ?? openedAt)
      const what = `${shown} of ${when}${state === 'open' ? ', which is not finished,' : ''}`
      if (!yes && (await context.confirm?.(`Delete ${what} for good?`)) !== true) {
        throw new Problem('cancelled', `${shown} was not deleted`)
      }
      isGone = await client.removeCheckpoint(name, { signal })
    } catch (error) {
      throw await explained(error, name, client, context)
    }
    if (!isGone) throw await explained(notFound(name), name, client, context)
    if (json) context.emit({ type: 'summary', source: name.source, checkpoint: name.number })
    else context.say(`${shown} is deleted.`)
  })
}

function notFound(name: CheckpointName): Problem {
  return new Problem('checkpoint-not-found', `there is no checkpoint ${formatCheckpointName(name)}`)
}

/** Where there is no such checkpoint: which there are. */
async function explained(
  error: unknown,
  { source, number }: CheckpointName,
  client: ReceiverClient,
  { signal, program }: CommandContext,
): Promise<unknown> {
  if (isProblem(error, 'conflict') && error.message.includes('is pinned')) {
    const name = formatCheckpointName({ source, number })
    const text = `${name} is pinned; to delete it: ${program} unpin ${client.location.withUser} ${name}`
    return new Problem('conflict', text, { cause: error })
  }
  if (!isProblem(error, 'checkpoint-not-found')) return error
  return await selectCheckpoint(client, source, number, signal).then(
    () => error,
    (problem: unknown) => problem,
  )
}
