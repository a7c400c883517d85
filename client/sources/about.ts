/** What a source tells of itself in listings: this machine, and `facts`, each as long as a receiver takes. */
import { hostname } from 'node:os'

/** As the protocol's schema says, in UTF-16 code units at most. */
const maxAboutLength = 4096

export function about(facts: Readonly<Record<string, string>>): Record<string, string> {
  const all = Object.entries({ host: hostname(), ...facts })
  return Object.fromEntries(all.map(([key, text]) => [key, shortened(text)]))
}

function shortened(text: string): string {
  if (text.length <= maxAboutLength) return text
  // Half of a surrogate pair is no text.
  return `${text.slice(0, maxAboutLength - 1).replace(/[\ud800-\udbff]$/, '')}…`
}
