/** The options of `serve` that say where it listens, and to whom. */
import { type Command, Option } from 'commander'
import { Problem } from '../../protocol/problem.ts'
import { ProxyTrust } from '../http/proxy-trust.ts'
import type { CertificateFiles } from '../listen/certificate.ts'
import { defaultPort, type Place, type PlaceText, parsePlace, parseSocketMode } from '../listen/place.ts'
import type { ReceiverOptions } from '../receiver.ts'
import { parsed, type Surroundings } from './data-command.ts'

export interface ListenOptions {
  readonly listen: readonly PlaceText[]
  readonly socketMode: number
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly tlsClientCa?: string
  readonly tlsClientRequired?: true
  readonly trustProxy: readonly string[]
  readonly proxyUserHeader?: string
  readonly plainHttp?: true
  readonly auth: boolean
}

export function withListenOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--listen <place>', 'HOST:PORT, unix:/PATH or systemd (repeatable)')
        .argParser((text, before: PlaceText[]) => [...before, parsed(text, parsePlace)])
        .default([], '127.0.0.1:8420'),
    )
    .addOption(
      new Option('--socket-mode <mode>', 'who may open a Unix socket, in octal')
        .argParser((text) => parsed(text, parseSocketMode))
        .default(0o600, '0600'),
    )
    .option('--tls-cert <file>', 'certificate and the chain above it, PEM; makes it https')
    .option('--tls-key <file>', 'its key, PEM')
    .option('--tls-client-ca <file>', 'authorities whose client certificates name a user (CN), PEM')
    .option('--tls-client-required', 'turn away whoever has no such certificate')
    .addOption(
      new Option(
        '--trust-proxy <who>',
        'believe X-Forwarded-* from ADDRESS[/BITS], or from unix (repeatable)',
      )
        .argParser((text, before: string[]) => [...before, text])
        .default([], 'nobody'),
    )
    .option('--proxy-user-header <name>', 'header in which such a proxy names the user it has authenticated')
    .option('--plain-http', 'let passwords travel in the clear')
    .option('--no-auth', 'where there are no users: let everybody in who can reach the address')
}

/** What these options mean to a receiver. Problem `usage` for what does not fit together. */
export function listeningOf(
  options: ListenOptions,
  surroundings: Surroundings,
): Pick<ReceiverOptions, 'places' | 'tls' | 'trust' | 'exposure'> {
  const tls = certificateFiles(options)
  return {
    places: placesOf(options, surroundings),
    ...(tls === undefined ? {} : { tls }),
    trust: proxyTrust(options),
    exposure: { isOpen: !options.auth, allowsPlainHttp: options.plainHttp === true },
  }
}

/** Where to listen. When systemd has opened sockets and nothing else is said, on those. */
function placesOf(
  { listen, socketMode: mode }: ListenOptions,
  { systemdSockets: count }: Surroundings,
): Place[] {
  if (listen.length === 0) {
    return count > 0 ? [{ kind: 'systemd', count }] : [{ kind: 'tcp', host: '127.0.0.1', port: defaultPort }]
  }
  return listen.map((place) => {
    if (place.kind === 'unix') return { ...place, mode }
    return place.kind === 'systemd' ? { ...place, count } : place
  })
}

function certificateFiles(options: ListenOptions): CertificateFiles | undefined {
  const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa, tlsClientRequired = false } = options
  if (cert === undefined && key === undefined && clientCa === undefined && !tlsClientRequired)
    return undefined
  if (cert === undefined || key === undefined) {
    throw new Problem('usage', 'TLS needs both --tls-cert and --tls-key')
  }
  if (clientCa === undefined && tlsClientRequired) {
    throw new Problem('usage', '--tls-client-required needs --tls-client-ca')
  }
  return { cert, key, isClientRequired: tlsClientRequired, ...(clientCa === undefined ? {} : { clientCa }) }
}

function proxyTrust({ trustProxy, proxyUserHeader }: ListenOptions): ProxyTrust {
  if (proxyUserHeader !== undefined) {
    if (trustProxy.length === 0) throw new Problem('usage', '--proxy-user-header needs --trust-proxy')
    if (!/^[A-Za-z0-9-]+$/.test(proxyUserHeader)) {
      throw new Problem('usage', '--proxy-user-header must be the name of a header, such as X-Remote-User')
    }
  }
  return new ProxyTrust(trustProxy, proxyUserHeader)
}
