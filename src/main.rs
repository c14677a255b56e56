//! The command line: arguments, settings, the log, and over to [`alluvium::app`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use alluvium::app::{self, App};
use alluvium::backup::{self, BackupArgs};
use alluvium::config::{self, Config};
use alluvium::ingest::{self, IngestArgs};
use alluvium::telemetry;
use alluvium::web::access::{Credential, Role};
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

/// Features come and go in small pieces by the hundred thousand: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Serves geospatial features that change all the time and are kept for good, by OGC API - Features and WFS.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// A TOML file of settings; config/default.toml documents them. Each can also be set by the environment, as
        /// ALLUVIUM__SERVER__LISTEN.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Run the embedded server with moving ships to look at.
    Demo {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Load a file of features (GeoJSON, NDJSON, CSV; gzip too) into a collection of a running server.
    Ingest(IngestArgs),
    /// Print the declaration of a feature type over a PostGIS table or view that is there: for the settings' file, or with
    /// --json for POST /collections.
    #[cfg(feature = "cluster")]
    ImportTable(ImportTable),
    /// Write a backup of a running embedded server: its GeoPackage and its log.
    Backup(BackupArgs),
    /// Make a new data directory of a backup, for a server to be started over.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Must not have data yet.
        #[arg(long, value_name = "DIR", default_value = "alluvium-data", env = "ALLUVIUM__STORE__DATA_DIR")]
        data_dir: PathBuf,
    },
    /// Make an entry for the file that server.credentials names, of a secret that is read from the standard input.
    Credentials {
        /// Who; the API key is this name, a dot and the secret.
        name: String,
        /// reader, editor (writes features) or admin (makes and removes collections).
        #[arg(long, default_value = "editor")]
        role: Role,
        /// The only collection that the role is for; may be given several times.
        #[arg(long = "collection", value_name = "ID")]
        collections: Vec<String>,
    },
}

#[cfg(feature = "cluster")]
#[derive(Args)]
struct ImportTable {
    /// The table or view.
    table: String,
    /// As in postgres://user:password@host/database.
    #[arg(long, value_name = "URL", env = "ALLUVIUM__POSTGRES__URL", hide_env_values = true)]
    database: String,
    #[arg(long, default_value = "public")]
    schema: String,
    /// The feature type's name [default: the table's, in lower case].
    #[arg(long, value_name = "ID")]
    collection: Option<String>,
    /// The column of the ids, where there is no primary key of one column.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "cluster")]
async fn import_table(args: ImportTable) -> anyhow::Result<()> {
    let ImportTable { table, database, schema, collection, key, json } = args;
    let collection = collection.unwrap_or_else(|| table.to_ascii_lowercase());
    let declared = alluvium::app::describe_table(database, schema, &table, &collection, key.as_deref()).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&declared)?);
    } else {
        let settings = std::collections::BTreeMap::from([("feature_types", [declared])]);
        print!("{}", toml::to_string(&settings)?);
    }
    Ok(())
}

#[derive(Args)]
struct Overrides {
    /// Address and port to listen on [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the embedded server keeps its log and its GeoPackage [default: alluvium-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Overrides {
    fn apply(self, config: &mut Config) {
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(dir) = self.data_dir {
            config.store.data_dir = dir;
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alluvium: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { config, overrides } => {
            let mut config = Config::load(config.as_deref())?;
            overrides.apply(&mut config);
            telemetry::init_log(&config.telemetry)?;
            runtime()?.block_on(serve(config))
        }
        Command::Demo { overrides } => {
            let mut config = Config::read("the demo's settings", config::DEMO, &config::environment())?;
            overrides.apply(&mut config);
            telemetry::init_log(&config.telemetry)?;
            runtime()?.block_on(demo(config))
        }
        Command::Ingest(args) => runtime()?.block_on(ingest::run(args)),
        #[cfg(feature = "cluster")]
        Command::ImportTable(args) => runtime()?.block_on(import_table(args)),
        Command::Backup(args) => runtime()?.block_on(backup::run(args)),
        Command::Restore { file, data_dir } => {
            app::restore(&file, &data_dir)?;
            println!("{}: restored; start the server with --data-dir {0}", data_dir.display());
            Ok(())
        }
        Command::Credentials { name, role, collections } => {
            let mut secret = String::new();
            std::io::stdin().read_line(&mut secret)?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            print!("{}", Credential::new(&name, role, collections, secret)?.to_toml()?);
            Ok(())
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop_signal());
    let app = tokio::select! {
        app = App::start(config) => app?,
        signal = &mut stop => return signal,
    };
    stop.await?;
    tracing::info!("stopping");
    app.shutdown().await;
    Ok(())
}

async fn demo(config: Config) -> anyhow::Result<()> {
    let data_dir = config.store.data_dir.clone();
    let app = App::start(config).await?;
    println!(
        "Open http://{} in a browser: ships move. Ctrl-C ends; the data stays in {}.",
        app.addr(),
        data_dir.display()
    );
    let stop = CancellationToken::new();
    let mut show = std::pin::pin!(alluvium::demo::run(format!("http://{}", app.addr()), stop.clone()));
    let outcome = tokio::select! {
        signal = stop_signal() => {
            stop.cancel();
            signal.and(show.await)
        }
        ended = &mut show => ended,
    };
    app.shutdown().await;
    outcome
}

/// Ctrl-C, or what a service manager sends.
async fn stop_signal() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            r = tokio::signal::ctrl_c() => r?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
