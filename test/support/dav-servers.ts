/**
 * Other people's WebDAV servers on 127.0.0.1, for tests: Apache's mod_dav, nginx's dav-ext, rclone's. Each runs
 * as a process of its own on a folder of its own. Where a program is not installed, `missing` says so:
 *
 *     describe.skipIf(apache.missing)(`Apache${apache.missing ?? ''}`, () => { …apache.start() })
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { env, getuid } from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'

export interface DavServerOptions {
  /** Ask for these credentials. */
  readonly user?: { readonly name: string; readonly password: string }
  /** Methods that are answered 405 (Apache only). */
  readonly refused?: readonly string[]
  /** Further configuration: lines of the location's block (Apache, nginx), arguments (rclone). */
  readonly extra?: readonly string[]
}

export interface LoggedRequest {
  readonly method: string
  readonly path: string
  readonly status: number
}

export interface DavServer extends AsyncDisposable {
  /** `http://127.0.0.1:port`: the served folder is its root. */
  readonly url: string
  /** The served folder. */
  readonly folder: string
  /** What it was asked so far, as its own log tells; rclone's tells nothing: then empty. */
  requests(): Promise<LoggedRequest[]>
  /** Stops it and removes its folder. Idempotent. */
  stop(): Promise<void>
}

export interface DavProgram {
  readonly name: string
  /** Why it cannot be started here; undefined when it can. */
  readonly missing: string | undefined
  start(options?: DavServerOptions): Promise<DavServer>
}

/** Where a server keeps its things. */
interface Place {
  readonly base: string
  readonly folder: string
  readonly port: number
  readonly options: DavServerOptions
}

/** What to run for a place; whatever files it needs have been written. */
type Prepare = (place: Place) => Promise<{ command: string; args: string[]; environment?: NodeJS.ProcessEnv }>

const startMs = 10_000

export function findProgram(name: string): string | undefined {
  const folders = [...(env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/bin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

export function firstFolder(...folders: string[]): string | undefined {
  return folders.find((folder) => existsSync(folder))
}

// -- Apache -------------------------------------------------------------------------------------------

const apachePath = findProgram('apache2') ?? findProgram('httpd')
const apacheModules = firstFolder('/usr/lib/apache2/modules', '/usr/lib64/httpd/modules')

async function prepareApache({ base, folder, port, options }: Place) {
  const module = (name: string): string =>
    existsSync(`${apacheModules}/mod_${name}.so`)
      ? `LoadModule ${name}_module ${apacheModules}/mod_${name}.so`
      : ''
  const { user, refused = [], extra = [] } = options
  if (user !== undefined) await writeFile(`${base}/users`, htpasswd(user))
  // As root it refuses to serve as root: the folder is given to whom it becomes.
  if (getuid?.() === 0) {
    await chown(base, 65534, 65534)
    await chown(folder, 65534, 65534)
  }
  const configuration = [
    `ServerRoot ${base}`,
    'ServerName 127.0.0.1',
    `Listen 127.0.0.1:${port}`,
    `PidFile ${base}/pid`,
    `ErrorLog ${base}/error.log`,
    ...['mpm_event', 'authn_core', 'authn_file', 'authz_core', 'authz_user', 'auth_basic'].map(module),
    ...['log_config', 'unixd', 'dav', 'dav_fs', 'rewrite'].map(module),
    'User #65534',
    'Group #65534',
    'ServerLimit 1',
    'StartServers 1',
    'ThreadsPerChild 16',
    'MaxRequestWorkers 16',
    'MinSpareThreads 1',
    'MaxSpareThreads 16',
    'LimitRequestBody 0',
    'MaxKeepAliveRequests 0',
    `CustomLog ${base}/requests.log "%m %U %>s"`,
    `DavLockDB ${base}/locks`,
    `DocumentRoot ${folder}`,
    refusal(refused),
    `<Directory ${folder}>`,
    'Dav On',
    'Options None',
    'AllowOverride None',
    ...(user === undefined
      ? ['Require all granted']
      : ['AuthType Basic', 'AuthName dav', `AuthUserFile ${base}/users`, 'Require valid-user']),
    ...extra,
    '</Directory>',
  ]
  await writeFile(`${base}/apache.conf`, `${configuration.join('\n')}\n`)
  return { command: apachePath as string, args: ['-f', `${base}/apache.conf`, '-DFOREGROUND'] }
}

/** Methods that the server is made not to know. */
function refusal(methods: readonly string[]): string {
  if (methods.length === 0) return ''
  return `RewriteEngine On\nRewriteCond %{REQUEST_METHOD} ^(${methods.join('|')})$\nRewriteRule .* - [R=405,L]`
}

/** Apache 2.4 with mod_dav_fs. Serves as nobody when run as root. */
export const apache: DavProgram = program(
  'Apache',
  apachePath === undefined || !existsSync(`${apacheModules}/mod_dav_fs.so`)
    ? 'apache2 with mod_dav_fs'
    : undefined,
  prepareApache,
)

// -- nginx --------------------------------------------------------------------------------------------

const nginxPath = findProgram('nginx')
const nginxModule = firstFolder(
  '/usr/lib/nginx/modules/ngx_http_dav_ext_module.so',
  '/usr/lib64/nginx/modules/ngx_http_dav_ext_module.so',
)

async function prepareNginx({ base, folder, port, options }: Place) {
  const { user, extra = [] } = options
  if (user !== undefined) await writeFile(`${base}/users`, htpasswd(user))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const configuration = `
${getuid?.() === 0 ? 'user root;' : ''}
load_module ${nginxModule};
daemon off;
worker_processes 1;
pid ${base}/pid;
error_log ${base}/error.log;
events { worker_connections 256; }
http {
  ${temporary.map((name) => `${name}_temp_path ${base}/${name};`).join('\n  ')}
  log_format short '$request_method $uri $status';
  access_log ${base}/requests.log short;
  client_max_body_size 0;
  keepalive_requests 1000000;
  dav_ext_lock_zone zone=locks:1m;
  server {
    listen 127.0.0.1:${port};
    root ${folder};
    location / {
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
      dav_ext_lock zone=locks;
      dav_access user:rw group:r all:r;
      ${user === undefined ? '' : `auth_basic dav; auth_basic_user_file ${base}/users;`}
      ${extra.join('\n      ')}
    }
  }
}
`
  await writeFile(`${base}/nginx.conf`, configuration)
  return {
    command: nginxPath as string,
    args: ['-c', `${base}/nginx.conf`, '-p', base, '-e', `${base}/error.log`],
  }
}

/** nginx with its own dav module and dav-ext. */
export const nginx: DavProgram = program(
  'nginx',
  nginxPath === undefined || nginxModule === undefined ? 'nginx with dav-ext' : undefined,
  prepareNginx,
)

// -- rclone -------------------------------------------------------------------------------------------

const rclonePath = findProgram('rclone')

async function prepareRclone({ base, folder, port, options }: Place) {
  const { user, extra = [] } = options
  const login = user === undefined ? [] : ['--user', user.name, '--pass', user.password]
  return {
    command: rclonePath as string,
    args: ['serve', 'webdav', folder, '--addr', `127.0.0.1:${port}`, ...login, ...extra],
    environment: { RCLONE_CONFIG: `${base}/rclone.conf`, RCLONE_CACHE_DIR: `${base}/cache` },
  }
}

/** `rclone serve webdav` over a local folder. */
export const rclone: DavProgram = program(
  'rclone',
  rclonePath === undefined ? 'rclone' : undefined,
  prepareRclone,
)

export const davPrograms: readonly DavProgram[] = [apache, nginx, rclone]

// -- running them -------------------------------------------------------------------------------------

function program(name: string, lacks: string | undefined, prepare: Prepare): DavProgram {
  const missing = lacks === undefined ? undefined : ` (skipped: ${lacks} is not installed)`
  return {
    name,
    missing,
    start: async (options = {}) => {
      if (missing !== undefined) throw new Error(`${name}${missing}`)
      // The port that was free may be taken by then.
      for (let attempt = 1; ; attempt++) {
        const server = await tryToStart(prepare, options)
        if (typeof server !== 'string') return server
        if (attempt === 3) throw new Error(`${name} does not start: ${server}`)
      }
    },
  }
}

/** The running server, or what it said when it ended. */
async function tryToStart(prepare: Prepare, options: DavServerOptions): Promise<DavServer | string> {
  const base = await mkdtemp(join(tmpdir(), 'chunkdav-dav-'))
  // Served by another user, maybe.
  await chmod(base, 0o755)
  const folder = join(base, 'served')
  await mkdir(folder)
  const port = await freePort()
  const { command, args, environment } = await prepare({ base, folder, port, options })
  const child = spawn(command, args, { env: { ...env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  child.stdout.on('data', (piece: Buffer) => {
    said = (said + piece.toString()).slice(-4000)
  })
  child.stderr.on('data', (piece: Buffer) => {
    said = (said + piece.toString()).slice(-4000)
  })
  const stop = async (): Promise<void> => {
    await endProcess(child)
    await rm(base, { recursive: true, force: true })
  }
  if (!(await answers(child, port))) {
    said += await readIfThere(`${base}/error.log`)
    await stop()
    return said.trim()
  }
  return {
    url: `http://127.0.0.1:${port}`,
    folder,
    requests: async () => parseLog(await readIfThere(`${base}/requests.log`)),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

/** Whether it takes connections before it ends, or the time is over. */
export async function answers(child: ChildProcess, port: number): Promise<boolean> {
  const until = performance.now() + startMs
  while (child.exitCode === null && child.signalCode === null && performance.now() < until) {
    const socket = connect(port, '127.0.0.1')
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
    socket.destroy()
    if (connected) return true
    await sleep(20)
  }
  return false
}

export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 5000)
  await exited
  clearTimeout(late)
}

export async function readIfThere(path: string): Promise<string> {
  return existsSync(path) ? readFile(path, 'utf8') : ''
}

function parseLog(text: string): LoggedRequest[] {
  return text.split('\n').flatMap((line) => {
    const [, method, path, status] = /^([A-Z]+) (.*) (\d{3})$/.exec(line) ?? []
    return method === undefined ? [] : [{ method, path: path as string, status: Number(status) }]
  })
}

/** A line of a password file that both Apache and nginx read. */
export function htpasswd({ name, password }: { name: string; password: string }): string {
  return `${name}:{SHA}${createHash('sha1').update(password).digest('base64')}\n`
}
