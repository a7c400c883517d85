import type { CheckpointState } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { WebDavBackups } from '../targets/webdav-backups.ts'
import { ReceiverContent, type TreeContent } from './tree-content.ts'
import { WebDavContent } from './webdav-content.ts'

/** What a committed checkpoint holds, to be closed by the caller. Problem `checkpoint-not-found` when it cannot be told. */
export async function openContent(
  client: ReceiverClient | WebDavBackups,
  checkpoint: CheckpointState,
  signal?: AbortSignal,
): Promise<TreeContent> {
  if (client instanceof WebDavBackups) return WebDavContent.open(client, checkpoint, signal)
  return new ReceiverContent(client, signal)
}
