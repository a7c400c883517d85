/** Text that compresses and repeats about as source code does: words that come back, lines that are taken up again. */
import { Dice } from '../../test/support/dice.ts'

const syllables = 'ba co de fi ga he in jo ka lu me no pa qu re si to un ve wi xa yo ze st er al on'.split(
  ' ',
)
const shapes = [
  'const # = #(#, #)',
  'if (# !== #) return #',
  'for (const # of #.#) {',
  '#.# = # + 0x@',
  '/* # # # of # and # */',
  "throw new Error('# # #')",
  '  return #.#(#) ?? @',
  '}',
  '',
  'export function #(#: #, #: #): # {',
  'static int #(struct # *#, int #);',
  '# = #[@] * #',
]

export class SourceText {
  readonly #dice: Dice
  readonly #words: readonly string[]
  readonly #earlier: string[] = []

  constructor(seed: number) {
    this.#dice = new Dice(seed)
    this.#words = Array.from({ length: 6000 }, () =>
      Array.from({ length: 1 + this.#dice.pick(4) }, () => this.#dice.of(syllables)).join(''),
    )
  }

  /** About as many characters, at least one. */
  text(length: number): string {
    let text = ''
    while (text.length < length) text += `${this.#line()}\n`
    return text
  }

  /** One of a few words mostly: the product of three dice leans to the beginning of the list. */
  word(): string {
    const at = this.#dice.next() * this.#dice.next() * this.#dice.next() * this.#words.length
    return this.#words[Math.floor(at)] ?? ''
  }

  /** A size in bytes: log-normal, median 1.6 KB, a few of some ten KB. */
  size(): number {
    const normal = Array.from({ length: 6 }, () => this.#dice.next()).reduce((sum, one) => sum + one, -3)
    return Math.ceil(1600 * Math.exp(1.5 * normal))
  }

  pick(bound: number): number {
    return this.#dice.pick(bound)
  }

  #line(): string {
    if (this.#earlier.length > 500 && this.#dice.once(4)) return this.#dice.of(this.#earlier)
    const line = this.#dice
      .of(shapes)
      .replace(/#/g, () => this.word())
      .replace(/@/g, () => this.#dice.pick(65536).toString(16))
    this.#earlier[this.#earlier.length < 2000 ? this.#earlier.length : this.#dice.pick(2000)] = line
    return `${' '.repeat(2 * this.#dice.pick(4))}${line}`
  }
}
