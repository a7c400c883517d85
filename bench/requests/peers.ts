/**
 * nginx's and Apache's DAV modules as Debian has them, each serving a folder of its own on the disk that is
 * measured. What differs from Debian's configuration: the port, the folders, no limit of a body's length, and
 * connections that are kept however many requests they make.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { getuid } from 'node:process'
import { run } from '../../test/clients/run-program.ts'
import {
  answers,
  endProcess,
  findProgram,
  firstFolder,
  freePort,
  readIfThere,
} from '../../test/support/dav-servers.ts'

export interface Peer extends AsyncDisposable {
  readonly name: 'nginx' | 'Apache'
  readonly version: string
  readonly port: number
  /** The served folder: the root of its paths. */
  readonly folder: string
}

const isRoot = getuid?.() === 0
/** nobody: as root, neither of them works as root. */
const nobody = 65534

export async function startNginx(base: string): Promise<Peer> {
  const program = needed('nginx', findProgram('nginx'))
  const moduleFolder = firstFolder('/usr/lib/nginx/modules', '/usr/lib64/nginx/modules')
  const extension = needed('libnginx-mod-http-dav-ext', moduleFolder, 'ngx_http_dav_ext_module.so')
  const { folder, port } = await makePlace(base)
  const configuration = `
${isRoot ? 'user nobody nogroup;' : ''}
load_module ${extension};
daemon off;
worker_processes auto;
pid ${base}/pid;
events { worker_connections 768; }
http {
  sendfile on;
  tcp_nopush on;
  types_hash_max_size 2048;
  access_log ${base}/access.log;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((it) => `${it}_temp_path ${base}/${it};`).join('\n  ')}
  client_max_body_size 0;
  keepalive_requests 100000000;
  server {
    listen 127.0.0.1:${port};
    root ${folder};
    location / {
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS;
    }
  }
}
`
  await writeFile(`${base}/nginx.conf`, configuration)
  const args = ['-c', `${base}/nginx.conf`, '-p', base, '-e', `${base}/error.log`]
  const { output } = await run(program, ['-v'])
  return start('nginx', /nginx\/\S+/.exec(output)?.[0] ?? 'nginx', program, args, { base, folder, port })
}

export async function startApache(base: string): Promise<Peer> {
  const program = needed('apache2', findProgram('apache2') ?? findProgram('httpd'))
  const moduleFolder = firstFolder('/usr/lib/apache2/modules', '/usr/lib64/httpd/modules')
  const load = ['mpm_event', 'authz_core', 'log_config', 'unixd', 'dav', 'dav_fs']
    .map((name) => [name, join(moduleFolder ?? '/', `mod_${name}.so`)] as const)
    // Some are built in, depending on who built it.
    .filter(([, path]) => existsSync(path))
    .map(([name, path]) => `LoadModule ${name}_module ${path}`)
  needed('mod_dav_fs', moduleFolder, 'mod_dav_fs.so')
  const { folder, port } = await makePlace(base)
  const configuration = [
    `ServerRoot ${base}`,
    'ServerName 127.0.0.1',
    `Listen 127.0.0.1:${port}`,
    `PidFile ${base}/pid`,
    `ErrorLog ${base}/error.log`,
    ...load,
    `User #${nobody}`,
    `Group #${nobody}`,
    'StartServers 2',
    'MinSpareThreads 25',
    'MaxSpareThreads 75',
    'ThreadLimit 64',
    'ThreadsPerChild 25',
    'MaxRequestWorkers 150',
    'MaxConnectionsPerChild 0',
    'KeepAlive On',
    'MaxKeepAliveRequests 0',
    'LimitRequestBody 0',
    'LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined',
    `CustomLog ${base}/access.log combined`,
    `DavLockDB ${base}/locks`,
    `DocumentRoot ${folder}`,
    `<Directory ${folder}>`,
    'Dav On',
    'AllowOverride None',
    'Require all granted',
    '</Directory>',
  ]
  await writeFile(`${base}/apache.conf`, `${configuration.join('\n')}\n`)
  const { output } = await run(program, ['-v'])
  const version = /Apache\/\S+/.exec(output)?.[0] ?? 'Apache'
  const args = ['-f', `${base}/apache.conf`, '-DFOREGROUND']
  return start('Apache', version, program, args, { base, folder, port })
}

interface Place {
  readonly base: string
  readonly folder: string
  readonly port: number
}

async function makePlace(base: string): Promise<Omit<Place, 'base'>> {
  const folder = join(base, 'served')
  await mkdir(folder, { recursive: true })
  await chmod(base, 0o755)
  if (isRoot) for (const path of [base, folder]) await chown(path, nobody, nobody)
  return { folder, port: await freePort() }
}

async function start(
  name: Peer['name'],
  version: string,
  program: string,
  args: readonly string[],
  { base, folder, port }: Place,
): Promise<Peer> {
  const child = spawn(program, args, { stdio: 'ignore' })
  if (!(await answers(child, port))) {
    const reason = await readIfThere(`${base}/error.log`)
    await endProcess(child)
    throw new Error(`${name} does not start: ${reason.trim()}`)
  }
  const stop = async (): Promise<void> => {
    await endProcess(child)
    await rm(base, { recursive: true, force: true })
  }
  return { name, version, port, folder, [Symbol.asyncDispose]: stop }
}

function needed(what: string, folder: string | undefined, file = ''): string {
  const path = folder === undefined ? undefined : join(folder, file)
  if (path === undefined || !existsSync(path)) throw new Error(`${what} is not installed`)
  return path
}
