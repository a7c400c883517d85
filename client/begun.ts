/** An iteration that is begun before anybody goes through it. */
export type Begun<T> = AsyncIterable<T> & Required<Pick<AsyncIterator<T>, 'next' | 'return'>>

/** `items` with the first of them asked for already. */
export function begun<T>(items: AsyncIterable<T>): Begun<T> {
  const iterator = items[Symbol.asyncIterator]()
  let first: Promise<IteratorResult<T>> | undefined = iterator.next()
  // Whoever takes it is told.
  first.catch((error: unknown) => error)
  return {
    next() {
      const next = first ?? iterator.next()
      first = undefined
      return next
    },
    async return() {
      await iterator.return?.()
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}
