/**
 * The same object with some methods in place of its own. Whatever else it can do stays, and runs on the object itself, so
 * that private fields work: for decorators of an interface that must not hide what a certain store can do beyond it.
 */
export function withMethods<T extends object>(object: T, methods: Partial<T>): T {
  // One bound function per method: a walk asks for `get` a million times.
  const bound = new WeakMap<object, unknown>()
  return new Proxy(object, {
    get(target, name) {
      if (Object.hasOwn(methods, name)) return methods[name as keyof T]
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      const known = bound.get(value) ?? value.bind(target)
      bound.set(value, known)
      return known
    },
  })
}
