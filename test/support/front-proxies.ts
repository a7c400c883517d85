/**
 * nginx and Apache with TLS in front of a receiver, configured as docs/operations.md says. The marked parts of their
 * configuration are what stands there.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getuid } from 'node:process'
import type { IssuedCertificate } from './certificates.ts'
import {
  answers,
  endProcess,
  findProgram,
  firstFolder,
  freePort,
  htpasswd,
  readIfThere,
} from './dav-servers.ts'

export interface FrontOptions {
  /** Where the receiver listens: `http://127.0.0.1:port` or `unix:/path`. */
  readonly upstream: string
  readonly certificate: IssuedCertificate
  /** The proxy asks for these itself, and tells the receiver who it is. */
  readonly user?: { readonly name: string; readonly password: string }
}

export interface FrontProxy extends AsyncDisposable {
  /** `https://localhost:port`. */
  readonly url: string
  /** The same without TLS, for clients that cannot be told about the authority. */
  readonly plainUrl: string
}

export interface FrontProgram {
  readonly name: string
  /** Why it cannot be started here. */
  readonly missing: string
  start(options: FrontOptions): Promise<FrontProxy>
}

interface Place extends FrontOptions {
  readonly base: string
  readonly port: number
  readonly plainPort: number
}

const nginxPath = findProgram('nginx')
const apachePath = findProgram('apache2') ?? findProgram('httpd')
const apacheModules = firstFolder('/usr/lib/apache2/modules', '/usr/lib64/httpd/modules')

function nginxConfiguration({ base, port, plainPort, upstream, certificate, user }: Place): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const server = upstream.startsWith('unix:') ? upstream : new URL(upstream).host
  const login = `auth_basic backups;
      auth_basic_user_file ${base}/users;
      proxy_set_header X-Remote-User $remote_user;
      proxy_set_header Authorization "";`
  return `
${getuid?.() === 0 ? 'user root;' : ''}
daemon off;
worker_processes 1;
pid ${base}/pid;
error_log ${base}/error.log;
events { worker_connections 256; }
http {
  ${temporary.map((name) => `${name}_temp_path ${base}/${name};`).join('\n  ')}
  access_log off;
  upstream chunkdav { server ${server}; keepalive 16; }
  server {
    listen 127.0.0.1:${port} ssl;
    listen 127.0.0.1:${plainPort};
    server_name localhost;
    ssl_certificate ${certificate.cert};
    ssl_certificate_key ${certificate.key};
    # as in docs/operations.md
    client_max_body_size 0;
    location / {
      proxy_pass http://chunkdav;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
      ${user === undefined ? '' : login}
    }
  }
}
`
}

function apacheConfiguration({ base, port, plainPort, upstream, certificate, user }: Place): string {
  const module = (name: string): string =>
    existsSync(`${apacheModules}/mod_${name}.so`)
      ? `LoadModule ${name}_module ${apacheModules}/mod_${name}.so`
      : ''
  const server = upstream.startsWith('unix:') ? `${upstream}|http://localhost/` : `${upstream}/`
  const login = `
<Location />
  AuthType Basic
  AuthName backups
  AuthUserFile ${base}/users
  Require valid-user
  RequestHeader set X-Remote-User expr=%{REMOTE_USER}
  RequestHeader unset Authorization
</Location>`
  const site = (scheme: string): string => `
  ServerName localhost
  # as in docs/operations.md
  LimitRequestBody 0
  AllowEncodedSlashes NoDecode
  ProxyPreserveHost On
  ProxyPass / ${server} nocanon timeout=3600
  RequestHeader set X-Forwarded-Proto ${scheme}
  ${user === undefined ? '' : login}`
  return `
ServerRoot ${base}
ServerName localhost
Listen 127.0.0.1:${port}
Listen 127.0.0.1:${plainPort}
PidFile ${base}/pid
ErrorLog ${base}/error.log
${['mpm_event', 'authn_core', 'authn_file', 'authz_core', 'authz_user', 'auth_basic'].map(module).join('\n')}
${['log_config', 'unixd', 'headers', 'proxy', 'proxy_http', 'socache_shmcb', 'ssl'].map(module).join('\n')}
User #65534
Group #65534
ServerLimit 1
StartServers 1
ThreadsPerChild 16
MaxRequestWorkers 16
MinSpareThreads 1
MaxSpareThreads 16
<VirtualHost 127.0.0.1:${port}>
  SSLEngine on
  SSLCertificateFile ${certificate.cert}
  SSLCertificateKeyFile ${certificate.key}
${site('https')}
</VirtualHost>
<VirtualHost 127.0.0.1:${plainPort}>
${site('http')}
</VirtualHost>
`
}

async function start(
  command: string,
  configure: (place: Place) => string,
  args: (path: string, base: string) => string[],
  options: FrontOptions,
): Promise<FrontProxy> {
  for (let attempt = 1; ; attempt++) {
    const base = await mkdtemp(join(tmpdir(), 'chunkdav-front-'))
    // Served by another user, maybe.
    await chmod(base, 0o755)
    const [port, plainPort] = [await freePort(), await freePort()]
    const path = join(base, 'front.conf')
    await writeFile(path, configure({ ...options, base, port, plainPort }))
    if (options.user !== undefined) await writeFile(join(base, 'users'), htpasswd(options.user))
    const child = spawn(command, args(path, base), { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (piece: Buffer) => {
      said = (said + piece.toString()).slice(-4000)
    })
    const stop = async (): Promise<void> => {
      await endProcess(child)
      await rm(base, { recursive: true, force: true })
    }
    if ((await answers(child, port)) && (await answers(child, plainPort))) {
      const plainUrl = `http://localhost:${plainPort}`
      return { url: `https://localhost:${port}`, plainUrl, [Symbol.asyncDispose]: stop }
    }
    said += await readIfThere(join(base, 'error.log'))
    await stop()
    // The port that was free may be taken by then.
    if (attempt === 3) throw new Error(`${command} does not start: ${said}`)
  }
}

export const frontPrograms: readonly FrontProgram[] = [
  {
    name: 'nginx',
    missing: nginxPath === undefined ? ' (skipped: nginx is not installed)' : '',
    start: (options) =>
      start(
        nginxPath as string,
        nginxConfiguration,
        (path, base) => ['-c', path, '-p', base, '-e', join(base, 'error.log')],
        options,
      ),
  },
  {
    name: 'Apache',
    missing:
      apachePath === undefined || !existsSync(`${apacheModules}/mod_proxy_http.so`)
        ? ' (skipped: apache2 with mod_proxy_http is not installed)'
        : '',
    start: (options) =>
      start(apachePath as string, apacheConfiguration, (path) => ['-f', path, '-DFOREGROUND'], options),
  },
]
