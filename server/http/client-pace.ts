/** How slowly a client may send what it announced, or take what it asked for. */

/**
 * Bytes in a second that must come or be taken, on average, after the time of grace. 512 is a bad mobile link; who is
 * slower holds connection, memory and turn for hours.
 */
export const minBytesPerMs = 512 / 1000
/** The same while others have been waiting for the memory: 16 KiB. Slower links finish when there is room for all. */
export const minPressedBytesPerMs = (16 * 1024) / 1000
/** How often it is looked whether others wait. */
const recheckMs = 1000

export interface PaceRules {
  /** Nothing at all for so long is too slow; before so long on the whole nothing else is. */
  readonly silentMs: number
  /** The same while others have been waiting. At most `silentMs`. */
  readonly graceMs: number
  /** Whether others have been waiting for what the client holds. */
  readonly isPressed: () => boolean
}

/**
 * Watches one transfer. Only the time that is spent in waiting for the client counts: what we do between two
 * pieces is not its fault. One timer is under way, whatever the number of pieces: what comes moves the moment at which
 * it is too late only further away, so it is looked again then.
 */
export class ClientPace {
  readonly #rules: PaceRules
  #timer: NodeJS.Timeout | undefined
  /** Set while the client is waited for. */
  #giveUp: (() => void) | undefined
  #since = 0
  #waitedMs = 0
  #bytes = 0
  #isOver = false

  constructor(rules: PaceRules) {
    this.#rules = rules
  }

  /**
   * The client's turn begins, unless it has: `giveUp` is called once if it takes too long, perhaps at once. Does nothing
   * when the transfer is over.
   */
  wait(giveUp: () => void): void {
    if (this.#isOver) return
    this.came()
    this.#giveUp = giveUp
    this.#since = performance.now()
    if (this.#timer === undefined) this.#check()
  }

  /** The client's turn is over; `bytes` have come, or were taken. Idempotent without bytes. */
  came(bytes = 0): void {
    this.#bytes += bytes
    if (this.#giveUp === undefined) return
    this.#giveUp = undefined
    this.#waitedMs += performance.now() - this.#since
  }

  /** The transfer is over, and stays so: nothing is waited for any more. Idempotent. */
  end(): void {
    this.#isOver = true
    this.came()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #check(): void {
    this.#timer = undefined
    const giveUp = this.#giveUp
    if (giveUp === undefined) return
    const { silentMs: allowedMs, graceMs, isPressed } = this.#rules
    const silentMs = performance.now() - this.#since
    const waitedMs = this.#waitedMs + silentMs
    const leftMs = Math.min(allowedMs - silentMs, allowedMs + this.#bytes / minBytesPerMs - waitedMs)
    const pressedLeftMs = graceMs + this.#bytes / minPressedBytesPerMs - waitedMs
    if (leftMs <= 0 || (pressedLeftMs <= 0 && isPressed())) {
      this.came()
      giveUp()
      return
    }
    const nextMs = Math.min(leftMs, pressedLeftMs > 0 ? pressedLeftMs : recheckMs)
    this.#timer = setTimeout(() => this.#check(), Math.ceil(nextMs))
  }
}
