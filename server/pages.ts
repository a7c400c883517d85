/** The items in pages of `length`; the last may be shorter. None when there are none. */
export async function* pagesOf<T>(
  items: Iterable<T> | AsyncIterable<T>,
  length: number,
): AsyncGenerator<readonly T[]> {
  let page: T[] = []
  for await (const item of items) {
    page.push(item)
    if (page.length < length) continue
    yield page
    page = []
  }
  if (page.length > 0) yield page
}
