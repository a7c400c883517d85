/** `chunkdav quota URL [SIZE]` */
import type { Command } from 'commander'
import prettyBytes from 'pretty-bytes'
import type { CommandContext } from './context.ts'
import { changeSettings } from './policy.ts'
import { receiverArgument, withReceiver } from './receiver-command.ts'
import { parseSize } from './size.ts'
import { jsonOption } from './vault-command.ts'

const examples = `
Examples:
  chunkdav quota http://127.0.0.1:8420/home
  chunkdav quota http://127.0.0.1:8420/home 500GB
  chunkdav quota http://127.0.0.1:8420/home none

What counts is what the vault takes on the receiver's disk: after deduplication and compression, garbage that is not
collected yet included. What does not fit any more is refused; whatever is there already stays, and can be read and deleted.
To set it takes the right admin on every vault (*).`

/** Adds `quota` to the program. */
export function registerQuota(program: Command, context: CommandContext): void {
  program
    .command('quota')
    .description('Show or set how much a vault may hold')
    .argument(...receiverArgument)
    .argument('[size]', 'such as 500GB or 1.5TiB, or none')
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, size: string | undefined, options: { json: boolean }) => {
      return quota(url, size, options, context)
    })
}

async function quota(
  url: string,
  size: string | undefined,
  { json }: { json: boolean },
  context: CommandContext,
): Promise<void> {
  const wanted = size === undefined || size === 'none' ? undefined : parseSize(size)
  await withReceiver(url, context, async (client) => {
    const { signal } = context
    if (size !== undefined) {
      await changeSettings(
        client,
        ({ quotaBytes: _, ...others }) => ({
          ...others,
          ...(wanted !== undefined && { quotaBytes: wanted }),
        }),
        signal,
      )
    }
    const { quotaBytes, storedBytes } = await client.capabilities({ signal })
    if (json) {
      context.emit({ type: 'summary', storedBytes, ...(quotaBytes !== undefined && { quotaBytes }) })
      return
    }
    const used = prettyBytes(storedBytes)
    if (quotaBytes === undefined) {
      context.say(`${client.location.shown} holds ${used} and has no quota.`)
      return
    }
    context.say(`${client.location.shown} holds ${used} of ${prettyBytes(quotaBytes)}.`)
    if (storedBytes > quotaBytes)
      context.say('  it holds more than it may: nothing new is taken until that is less')
  })
}
