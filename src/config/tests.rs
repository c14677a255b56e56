use super::*;
use layers::Node;

const DEFAULT: &str = include_str!("../../config/default.toml");

fn read(text: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
    let variables: Vec<_> = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Config::read("test.toml", text, &variables)
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    read(text, variables).expect_err("must be refused").to_string()
}

#[test]
fn the_documented_defaults_are_the_built_in_ones() {
    assert_eq!(read(DEFAULT, &[]).unwrap(), Config::default());
}

/// The same file with its examples uncommented.
fn everything() -> String {
    let example = |line: &str| {
        let rest = line.strip_prefix('#')?;
        (!rest.starts_with(' ') || rest.starts_with("  {")).then(|| rest.replace("${file:", "${"))
    };
    DEFAULT.lines().map(|l| example(l).unwrap_or_else(|| l.to_owned()) + "\n").collect()
}

#[test]
fn every_key_is_documented() {
    let mut tree = layers::from_toml(&everything(), &|_| Ok("secret".into())).unwrap();
    let full = Config::deserialize(tree.clone()).unwrap();
    full.check().unwrap();
    assert_eq!(full.feature_types[0].properties.len(), 3);
    for section in ["server", "service", "store", "memory", "telemetry", "kafka", "postgres", "zookeeper"] {
        // The refusal of an unknown key lists those there are.
        tree.set(&[section.into(), "nonsense".into()], Node::Text("1".into()));
        let message = Config::deserialize(tree.clone()).expect_err("an unknown key").to_string();
        let keys = message.split_once("there are ").expect("a list of keys").1;
        for key in keys.split(", ") {
            let documented = everything().lines().any(|l| l.starts_with(&format!("{key} =")));
            assert!(documented, "{section}.{key} is not in default.toml");
        }
        let Node::Table(sections) = &mut tree else { unreachable!("a file is a table") };
        let Some(Node::Table(keys)) = sections.get_mut(section) else { unreachable!("every section is in the file") };
        keys.remove("nonsense");
    }
}

#[test]
fn the_other_files_are_good() {
    let demo = read(DEMO, &[]).unwrap();
    assert_eq!(
        demo.feature_types.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["ships", "ship_tracks", "countries"]
    );
    let lookup = |name: &str| Ok(format!("address of {name}"));
    let tree = layers::from_toml(include_str!("../../config/clustered.toml"), &lookup).unwrap();
    let clustered = Config::deserialize(tree).unwrap();
    clustered.check().unwrap();
    assert_eq!(clustered.cluster().unwrap().kafka.brokers, "address of ALLUVIUM_KAFKA");
}

#[test]
fn the_environment_goes_before_the_file_and_takes_the_type_of_the_key() {
    let c = read(
        "[server]\nmax_limit = 50\nlisten = '127.0.0.1:1'",
        &[
            ("ALLUVIUM__SERVER__LISTEN", "0.0.0.0:9"),
            ("ALLUVIUM__SERVER__ALLOW_ANONYMOUS_WRITES", "true"),
            ("ALLUVIUM__SERVER__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ("ALLUVIUM__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,::1"),
            ("ALLUVIUM__SERVER__PUBLIC_URL", ""),
            ("ALLUVIUM__STORE__SWEEP_INTERVAL", "0.25"),
            ("ALLUVIUM__TELEMETRY__LOG_FORMAT", "json"),
            ("ALLUVIUM__KAFKA__BROKERS", "k:1"),
            ("ALLUVIUM__KAFKA__PROPERTIES", "security.protocol=SSL,a=b=c"),
            ("ALLUVIUM__POSTGRES__URL", "postgres://p/1"),
            ("ALLUVIUM__POSTGRES__MAX_CONNECTIONS", "7"),
            ("ALLUVIUM__ZOOKEEPER__SERVERS", "12"),
        ],
    )
    .unwrap();
    assert_eq!(c.server.listen.to_string(), "0.0.0.0:9");
    assert_eq!(c.server.max_limit, 50);
    assert!(c.server.allow_anonymous_writes);
    assert_eq!(c.server.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(c.server.trusted_proxies.len(), 2);
    assert_eq!(c.server.public_url, None);
    assert_eq!(c.store.sweep_interval, Duration::from_millis(250));
    assert_eq!(c.telemetry.log_format, LogFormat::Json);
    let cluster = c.cluster().unwrap();
    assert_eq!(cluster.kafka.properties["a"], "b=c");
    assert_eq!(cluster.postgres.max_connections, 7);
    assert_eq!(cluster.zookeeper.servers, "12");
}

#[test]
fn a_wrong_key_is_named() {
    for (text, variable, expected) in [
        ("[server]\nlsiten = 'x'", None, "test.toml: server.lsiten: there is no such key; there are listen, "),
        ("[sever]", None, "test.toml: sever: there is no such key"),
        ("[server]\nmax_limit = 'many'", None, "test.toml: server.max_limit: "),
        ("[server]\nlisten = 'here'", None, "test.toml: server.listen: "),
        ("[server]\npublic_url = 'example.org'", None, "test.toml: server.public_url: 'example.org' is not like"),
        ("[server]\nmax_limit = 5", None, "test.toml: server.default_limit: is greater"),
        ("server = 5", None, "test.toml: server: this is a section"),
        ("[store]\nsweep_interval = -1", None, "test.toml: store.sweep_interval: -1 is not a number of seconds"),
        ("[memory]\nsoft_limit = '5 miles'", None, "test.toml: memory.soft_limit: '5 miles' is not a size like"),
        ("[memory]\nsoft_limit = 5\nhard_limit = '5 B'", None, "test.toml: memory.soft_limit: must be less than"),
        ("[kafka]\nbrokers = 'x'", None, "test.toml: postgres: the clustered stack needs"),
        ("[kafka]", None, "test.toml: kafka.brokers: this key is required"),
        ("[[feature_types]]\nname = 'a'\ncolour = 1", None, "test.toml: feature_types.0.colour: there is no such key"),
        ("[[feature_types]]\nname = 'A'", None, "test.toml: feature_types.A.name: 'A' is not a name"),
        ("[server", None, "test.toml: TOML parse error at line 1"),
        (
            "[kafka]\nbrokers = '${NO_SUCH_VARIABLE}'",
            None,
            "test.toml: kafka.brokers: the environment variable NO_SUCH",
        ),
        (
            "",
            Some(("ALLUVIUM__SERVER__LSITEN", "x")),
            "environment variable ALLUVIUM__SERVER__LSITEN: server.lsiten: there",
        ),
        (
            "",
            Some(("ALLUVIUM__SERVER__MAX_LIMIT", "9x")),
            "environment variable ALLUVIUM__SERVER__MAX_LIMIT: server.max_",
        ),
        ("", Some(("ALLUVIUM__SERVER", "9")), "environment variable ALLUVIUM__SERVER: server: this is a section"),
        (
            "",
            Some(("ALLUVIUM__TELEMETRY__LOG_FORMAT", "xml")),
            "environment variable ALLUVIUM__TELEMETRY__LOG_FORMAT: ",
        ),
    ] {
        let message = error(text, &variable.into_iter().collect::<Vec<_>>());
        assert!(message.starts_with(expected), "{text:?} {variable:?}\n  says: {message}\n  want: {expected}");
    }
}

#[test]
fn sizes_come_from_everywhere() {
    let config = read("[memory]\nsoft_limit = '384 MiB'", &[("ALLUVIUM__MEMORY__HARD_LIMIT", "512 MiB")]).unwrap();
    assert_eq!(config.memory.limits(), (384 << 20, 512 << 20));
    assert_eq!(read("", &[("ALLUVIUM__MEMORY__HARD_LIMIT", "4000")]).unwrap().memory.hard_limit, Some(4_000));
}

#[test]
fn secrets_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "pa ss\n").unwrap();
    let text = format!(
        "[kafka]\nbrokers='k'\n[kafka.properties]\n'sasl.password' = '${{file:{p}}}'\n[postgres]\nurl='u'\n[zookeeper]\nservers='z'",
        p = path.display()
    );
    assert_eq!(read(&text, &[]).unwrap().kafka.unwrap().properties["sasl.password"], "pa ss");
}

#[test]
fn networks_contain_their_addresses() {
    let has = |n: &str, a: &str| Network::try_from(n.to_owned()).unwrap().contains(a.parse().unwrap());
    assert!(has("10.0.0.0/8", "10.200.1.1"));
    assert!(has("10.0.0.0/8", "::ffff:10.200.1.1"));
    assert!(!has("10.0.0.0/8", "11.0.0.1"));
    assert!(has("0.0.0.0/0", "11.0.0.1"));
    assert!(!has("0.0.0.0/0", "::1"));
    assert!(has("fd00::/8", "fdff::1"));
    assert!(has("127.0.0.1", "127.0.0.1"));
    assert!(!has("127.0.0.1", "127.0.0.2"));
    assert!(Network::try_from("10.0.0.0/33".to_owned()).is_err());
    assert!(Network::try_from("proxy".to_owned()).is_err());
}
