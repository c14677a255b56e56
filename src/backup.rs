//! `alluvium backup`: fetches a backup from a running embedded server, by HTTP, and checks it.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::client::Client;
use crate::clock::{Clock, SystemClock};
use crate::format::archive;
use crate::model::value::format_instant;

#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// The file to write, or a directory, where it gets a name with the time.
    path: PathBuf,
    /// The server's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "ALLUVIUM_SERVER")]
    server: String,
    /// An API key with the role admin, where the server wants one.
    #[arg(long, value_name = "KEY", env = "ALLUVIUM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// Writes the backup; it bears its name only once it is whole, checked and on the disk.
pub async fn run(args: BackupArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server, args.api_key.as_deref())?;
    let mut path = args.path;
    if path.is_dir() {
        let now = format_instant(SystemClock.now_ms() / 1000 * 1_000_000).replace([':', '-'], "");
        path.push(format!("alluvium-{now}.backup"));
    }
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let fetched = async {
        let mut file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let mut bytes = 0_u64;
        client
            .download("/admin/backup", |piece| {
                bytes += piece.len() as u64;
                file.write_all(piece)
            })
            .await?;
        file.sync_all()?;
        archive::read(BufReader::new(File::open(&partial)?), |_| Ok(())).context("the backup did not come whole")?;
        std::fs::rename(&partial, &path)?;
        anyhow::Ok(bytes)
    };
    match fetched.await {
        Ok(bytes) => println!("{}: {bytes} bytes", path.display()),
        Err(e) => {
            let _ = std::fs::remove_file(&partial);
            return Err(e);
        }
    }
    Ok(())
}
