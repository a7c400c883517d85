/**
 * V8's settings while a backup or a restore is at work.
 *
 * Under other than its own settings V8 believes no code that was compiled before, neither Node's own nor what the program
 * keeps (bin.ts): a thread takes 25 ms more of a processor to start (measured). So they hold from when a command's work
 * begins, and not while a thread starts or more of the program is loaded.
 */
import { cachedDataVersionTag, setFlagsFromString } from 'node:v8'

/** What holds at work, and V8's own choice: of several, whichever it is here. */
const settings: readonly (readonly [string, ...string[]])[] = [
  // V8 collects garbage at every 32 MiB of new buffers, however little of it there is: a third of all processor time
  // (measured). Buffers count towards the heap's own limit instead.
  ['--external-memory-accounted-in-global-limit', '--no-external-memory-accounted-in-global-limit'],
  // The heap may double before it is collected, instead of fourfold: by half alone takes a twentieth more time.
  ['--heap-growing-percent=100', '--heap-growing-percent=0'],
  // The nursery stays small: left alone it takes 100 MiB of a backup's memory.
  ['--semi-space-growth-factor=1', '--semi-space-growth-factor=2'],
  // Of so little, several threads have more work than one: a twentieth of the time of a chunk of 1 MiB (measured).
  ['--no-parallel-scavenge', '--parallel-scavenge'],
  // Code is optimised to the last when it has run for a while: a backup of little is over before that pays, and
  // 5 % of the time of any goes into it (measured).
  [
    '--invocation-count-for-turbofan=30000',
    '--invocation-count-for-turbofan=3000',
    '--invocation-count-for-turbofan=10000',
  ],
]

/** What is set at work, and otherwise. Empty before. */
let choices: { readonly atWork: string; readonly own: string }[] = []
let starting = 0

/** From now on the program works for long. */
export function tuneForWork(): void {
  if (choices.length > 0) return
  const tag = cachedDataVersionTag()
  const isOwn = (flag: string): boolean => {
    setFlagsFromString(flag)
    // Compiled code bears it: the same when all flags are.
    return cachedDataVersionTag() === tag
  }
  choices = settings.map(([atWork, ...own]) => ({ atWork, own: own.find(isOwn) ?? atWork }))
  apply()
}

function apply(): void {
  for (const { atWork, own } of choices) setFlagsFromString(starting === 0 ? atWork : own)
}

/** Does what `load` does under V8's own settings. */
export async function loading<T>(load: () => Promise<T>): Promise<T> {
  starting++
  apply()
  try {
    return await load()
  } finally {
    starting--
    apply()
  }
}
