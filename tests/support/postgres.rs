//! A real PostgreSQL, one for all tests of a binary, with a database for each test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const USER: &str = "portcullis";
pub const PASSWORD: &str = "the password of the tests' database";

/// The server of this test binary. It ends with the process, whichever way that ends: it is kept by a
/// shell that waits for the end of its standard input.
pub struct Postgres {
    pub address: SocketAddr,
    bin: PathBuf,
    keeper: Child,
}

static SERVER: OnceLock<Postgres> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Postgres {
    /// The server, started on first use.
    pub fn server() -> &'static Postgres {
        SERVER.get_or_init(|| Postgres::start(None))
    }

    /// Starts one; with a certificate and its key, PEM, that it shows to who asks for TLS.
    pub fn start(tls: Option<(&str, &str)>) -> Postgres {
        let (cert, key) = tls.unwrap_or_default();
        let bin = bin();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let script = format!(
            r#"set -eu
            folder=$(mktemp -d)
            trap 'rm -rf "$folder"' EXIT
            as=
            if [ "$(id -u)" = 0 ]; then
                chown nobody "$folder"
                as='setpriv --reuid=nobody --regid=nogroup --clear-groups'
            fi
            cd "$folder"
            tls=
            if [ -n "$TLS_KEY" ]; then
                printf %s "$TLS_CERT" > "$folder/server.crt"
                (umask 077; printf %s "$TLS_KEY" > "$folder/server.key")
                [ -z "$as" ] || chown nobody "$folder/server.key"
                tls="-c ssl=on -c ssl_cert_file=$folder/server.crt -c ssl_key_file=$folder/server.key"
            fi
            printf %s "$PASSWORD" > "$folder/password"
            chmod 644 "$folder/password"
            $as {bin}/initdb -D "$folder/data" -U {USER} -A scram-sha-256 -E UTF8 --locale=C \
                --pwfile="$folder/password" --no-sync >/dev/null
            $as {bin}/postgres -D "$folder/data" -p {port} -h 127.0.0.1 -k '' \
                -c fsync=off -c full_page_writes=off -c max_connections=300 \
                -c log_min_messages=panic $tls </dev/null &
            server=$!
            cat >/dev/null
            kill -QUIT $server
            wait $server || true"#,
            bin = bin.display(),
            port = address.port(),
        );
        let keeper = Command::new("sh")
            .args(["-c", &script])
            .env("PASSWORD", PASSWORD)
            .env("TLS_CERT", cert)
            .env("TLS_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Postgres {
            address,
            bin,
            keeper,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.sql("postgres", "SELECT 1").is_none() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Makes an empty database and gives its name.
    pub fn database(&self) -> String {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.sql("postgres", &format!("CREATE DATABASE {name}"))
            .unwrap();
        name
    }

    /// Runs SQL and returns the lines that it printed; `None`: it failed.
    pub fn sql(&self, database: &str, text: &str) -> Option<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()])
            .args(["-U", USER, "-d", database, "-AtqX", "-c", text])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.trim_end().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its keeper ends the server once its standard input has ended.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Where Debian keeps the programs of the newest version, which are not on the path; else the path.
fn bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .max_by_key(|path| number(path));
    if let Some(newest) = newest {
        return newest.join("bin");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("initdb").exists())
        .expect("PostgreSQL is needed for these tests: scripts/setup tests installs it")
}
