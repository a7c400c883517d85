/** The load generator's process, as the benchmark sees it. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { endProcess } from '../../test/support/dav-servers.ts'
import type { Drive, Driven, FromGenerator, Prepare, Prepared, ToGenerator } from './load-generator.ts'

const script = new URL('load-generator.ts', import.meta.url).pathname

export class GeneratorProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static start(): GeneratorProcess {
    return new GeneratorProcess(fork(script, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }))
  }

  async prepare(task: Omit<Prepare, 'kind'>): Promise<Prepared> {
    return (await this.#ask({ kind: 'prepare', ...task })) as Prepared
  }

  async drive(task: Omit<Drive, 'kind'>): Promise<Driven> {
    return (await this.#ask({ kind: 'drive', ...task })) as Driven
  }

  async #ask(task: ToGenerator): Promise<FromGenerator> {
    const ended = new AbortController()
    const gone = once(this.#child, 'exit', { signal: ended.signal }).then(() => {
      throw new Error('the load generator ended')
    })
    const answered = once(this.#child, 'message', { signal: ended.signal })
    this.#child.send(task)
    const [answer] = (await Promise.race([answered, gone]).finally(() => {
      gone.catch(() => undefined)
      answered.catch(() => undefined)
      ended.abort()
    })) as [FromGenerator]
    if ('error' in answer) throw new Error(answer.error)
    return answer
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endProcess(this.#child)
  }
}
