//! What reviewers would otherwise have to remember: layers, who may say what, sizes, links,
//! numbering.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Files that may be longer than [`LINES_MAX`], each with its reason.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "broker/core/tests/world/mod.rs",
        "the tests' store, clocks and names, which every kind of test needs together",
    ),
    (
        "proto/src/request.rs",
        "every request, reply and push in wire order: the protocol on one page",
    ),
];

/// A source file longer than this holds more than one concept.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the repository")
        .to_path_buf()
}

/// The repository's own text files with their paths, as far as their names end in one of `endings`.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .expect("read a directory")
            .map(|entry| entry.expect("read an entry").path())
            .collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git", "node_modules", "__pycache__", ".venv"].contains(&name) {
                    walk(&path, root, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path)
                    .unwrap_or_else(|why| panic!("read {}: {why}", path.display()));
                let path = path.strip_prefix(root).expect("the file lies in the repository");
                found.push((path.to_str().expect("paths are UTF-8").to_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &root(), endings, &mut found);
    assert!(!found.is_empty(), "no file ends in {endings:?}");
    found
}

/// Lines of code, numbered from 1: no comments, no empty lines.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(place, line)| (place + 1, line)).filter(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with("//")
    })
}

/// Fails with one line per finding.
#[track_caller]
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Places in the product's code where one of `words` stands although `allowed` does not name the
/// file.
fn said(words: &[&str], within: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !within.iter().any(|prefix| path.starts_with(prefix))
            || allowed.iter().any(|prefix| path.starts_with(prefix))
        {
            continue;
        }
        for (number, line) in code(&text) {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                findings.push(format!("{path}:{number} says {word}"));
            }
        }
    }
    findings
}

const PRODUCT: &[&str] = &[
    "proto/src/",
    "proto/client/src/",
    "broker/src/",
    "broker/core/src/",
    "mcp/src/",
    "mcp/core/src/",
    "cli/src/",
];

#[test]
fn crates_depend_on_the_layers_above_and_on_nothing_else() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");

    // The picture in ARCHITECTURE.md, and which outside crate is whose alone.
    let layers: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("peer-proto", &[][..]),
        ("peer-client", &["peer-proto"][..]),
        ("peer-core", &["peer-proto"][..]),
        ("peer-broker", &["peer-core", "peer-proto"][..]),
        ("peer-mcp-core", &["peer-proto"][..]),
        ("peer-mcp", &["peer-client", "peer-mcp-core", "peer-proto"][..]),
        ("peer-link-core", &["peer-proto"][..]),
        ("peer-link-nats", &["peer-proto"][..]),
        ("peer-link", &["peer-client", "peer-link-core", "peer-link-nats", "peer-proto"][..]),
        (
            "peerctl",
            &[
                "peer-broker",
                "peer-client",
                "peer-link",
                "peer-link-core",
                "peer-mcp",
                "peer-proto",
            ][..],
        ),
    ]);
    let owners: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("bincode", &["peer-proto", "peer-broker"][..]),
        ("redb", &["peer-broker"][..]),
        ("seccompiler", &["peer-broker"][..]),
        ("rmcp", &["peer-mcp"][..]),
        ("clap", &["peerctl"][..]),
        (
            "tokio",
            &["peer-client", "peer-broker", "peer-link", "peer-link-nats", "peer-mcp", "peerctl"][..],
        ),
        ("async-nats", &["peer-link-nats"][..]),
        ("crypto_box", &["peer-link-nats"][..]),
        ("crypto_secretbox", &["peer-link-nats"][..]),
        ("dirs", &["peer-client", "peerctl"][..]),
    ]);
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages is a list") {
        let name = package["name"].as_str().expect("a package has a name");
        seen.insert(name.to_owned());
        let dependencies = package["dependencies"].as_array().expect("dependencies is a list");
        for dependency in dependencies.iter().filter(|dependency| dependency["kind"].is_null()) {
            let on = dependency["name"].as_str().expect("a dependency has a name");
            if name == "peer-tests" {
                continue;
            }
            let ours = on.starts_with("peer");
            let known =
                layers.get(name).unwrap_or_else(|| panic!("{name} has no place in the layers"));
            if ours && !known.contains(&on)
                || owners.get(on).is_some_and(|owners| !owners.contains(&name))
            {
                findings.push(format!("{name} depends on {on}"));
            }
        }
    }
    none(findings);
    assert_eq!(seen, layers.keys().copied().chain(["peer-tests"]).map(str::to_owned).collect());
}

/// The broker and the adapter can open no connection to another machine, whatever the link process
/// brings: nothing that could is among their dependencies.
#[test]
fn the_broker_and_the_adapter_have_no_network_library() {
    for package in ["peer-broker", "peer-mcp"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p}", "--package", package, "--manifest-path"])
            .arg(root().join("Cargo.toml"))
            .output()
            .expect("run cargo tree");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(tree.contains("peer-proto"), "cargo tree prints packages: {tree}");
        let network = ["async-nats", "rustls", "tokio-rustls", "ring", "peer-link-nats"];
        let found = tree
            .lines()
            .filter(|line| line.split_whitespace().next().is_some_and(|it| network.contains(&it)));
        none(found.map(|line| format!("{package} depends on {line}")).collect());
    }
}

#[test]
fn only_the_store_says_redb() {
    none(said(&["redb::"], PRODUCT, &["broker/src/store/"]));
}

#[test]
fn only_the_codec_and_the_store_s_records_say_bincode() {
    none(said(&["bincode::"], PRODUCT, &["proto/src/codec.rs", "broker/src/store/record.rs"]));
}

/// A next step is a field of its own: a text in which it is looked for may be an operating
/// system's, or a path's.
#[test]
fn no_text_is_taken_apart_for_its_next_step() {
    none(said(&["split_once(\"; \")", "split(\"; \")", "find(\"; \")"], PRODUCT, &[]));
}

/// What a tool is called, or which command to type, is said to the reader whom it helps: one file
/// knows who that is.
#[test]
fn only_one_file_of_the_rules_names_tools_and_commands() {
    let words = ["`peerctl ", "action=\\\"", "check_messages", "list_peers shows"];
    none(said(&words, &["broker/core/src/"], &["broker/core/src/wording"]));
    let shell =
        ["query", "connection", "engine", "outbox", "readings", "search/indexer", "search/mod"];
    let files: Vec<String> = shell.iter().map(|file| format!("broker/src/{file}.rs")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    none(said(&["hint:", "ErrorCode::"], &files, &[]));
}

#[test]
fn only_the_command_line_prints() {
    none(said(&["println!(", "print!(", "eprint!(", "clippy::print"], PRODUCT, &["cli/"]));
}

#[test]
fn the_rules_have_no_clock_no_randomness_no_order_of_hashes_and_no_world() {
    let forbidden = [
        "async ",
        ".await",
        "Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "std::os",
        "std::io",
        "getrandom",
        "rand::",
    ];
    none(said(
        &forbidden,
        &["broker/core/src/", "mcp/core/src/", "proto/src/"],
        &["proto/src/codec.rs"],
    ));
}

/// A delivery's stage, trace, attempts and receipts change in one table, and its time stands in one
/// index.
#[test]
fn only_transitions_change_a_delivery() {
    let writes = [
        ".stage = ",
        "trace.push(",
        "trace.insert(",
        ".attempts +=",
        ".attempts =",
        "acked_at =",
        "answered_by =",
    ];
    none(said(
        &writes,
        &["broker/src/", "broker/core/src/"],
        &[
            "broker/core/src/delivery.rs",
            "broker/src/store/damage.rs",
            "broker/src/store/tests/",
            "broker/src/search/tests.rs",
        ],
    ));
}

/// State stands below rules: an index knows nothing of who changes it.
#[test]
fn what_the_rules_remember_knows_no_rule() {
    none(said(
        &["impl Broker", "&Broker", "&mut Broker", "crate::broker", "crate::rules"],
        &["broker/core/src/state/"],
        &[],
    ));
}

/// The modules of a crate import each other in one direction: it can be read, and changed, from
/// below.
#[test]
fn no_module_imports_itself_by_way_of_others() {
    // `StoreError` contains `RecordError`, and the functions that read records return `StoreError`.
    let broker = [("store::record", "store::error")];
    for (source, imports_least, excused) in [
        ("broker/core/src/", 50, &[][..]),
        ("mcp/core/src/", 15, &[]),
        ("broker/src/", 100, &broker),
    ] {
        none(circles(source, imports_least, excused));
    }
}

/// The modules of a crate that import themselves by way of others, or stand above such.
fn circles(source: &str, imports_least: usize, excused: &[(&str, &str)]) -> Vec<String> {
    let sources: BTreeMap<String, String> = files(&[".rs"])
        .into_iter()
        .filter_map(|(path, text)| {
            let module = path.strip_prefix(source)?.strip_suffix(".rs")?.replace('/', "::");
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            Some((module, code(product).map(|(_, line)| line).collect::<Vec<_>>().join("\n")))
        })
        .collect();
    let imports = |module: &str, text: &str| {
        let named = paths(module, text);
        let names = |other: &&String| {
            let path = format!("crate::{other}");
            let is_named = named.iter().any(|named| {
                let rest = named.strip_prefix(&path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            is_named && *other != module && !excused.contains(&(module, other.as_str()))
        };
        sources.keys().filter(names).cloned().collect::<Vec<String>>()
    };
    let mut above: BTreeMap<&String, Vec<String>> =
        sources.iter().map(|(module, text)| (module, imports(module, text))).collect();
    assert!(
        above.values().map(Vec::len).sum::<usize>() > imports_least,
        "the imports of {source} are found"
    );
    for (module, other) in excused {
        let text = sources.get(*module).expect("the module exists");
        let path = format!("crate::{other}");
        let needed = paths(module, text).iter().any(|named| named.starts_with(&path));
        assert!(needed, "{module} does not import {other}, and needs no excuse");
    }
    // What imports nothing that is left stands lowest. What never does is part of a circle, or
    // above one.
    while let Some(lowest) =
        above.iter().find(|(_, imports)| imports.is_empty()).map(|(module, _)| (*module).clone())
    {
        above.remove(&lowest);
        above.values_mut().for_each(|imports| imports.retain(|module| *module != lowest));
    }
    above
        .iter()
        .map(|(module, imports)| format!("{source}{module} imports {}", imports.join(", ")))
        .collect()
}

/// The paths in a module's text that begin at the crate or at the module's parent, each from the
/// crate on. Of a list in braces, each item has its own path.
fn paths(module: &str, text: &str) -> Vec<String> {
    // `mod.rs` is the module of its folder, so its parent is that of the folder.
    let module = module.strip_suffix("::mod").unwrap_or(module);
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for (start, from) in [("crate::", "crate"), ("super::", parent)] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before)) {
                continue;
            }
            let mut from = from.to_owned();
            let mut rest = &text[at + start.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                from = from.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.into());
                rest = further;
            }
            let from = match from.as_str() {
                "" => "crate".to_owned(),
                "crate" => from,
                inner => format!("crate::{inner}"),
            };
            follow(&from, rest, &mut found);
        }
    }
    found
}

/// Adds the paths that begin with `from` and go on in `rest`; returns what follows them.
fn follow<'text>(from: &str, rest: &'text str, found: &mut Vec<String>) -> &'text str {
    let Some(mut list) = rest.strip_prefix('{') else {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let path = format!("{from}::{}", &rest[..end]);
        return match rest[end..].strip_prefix("::") {
            Some(further) => follow(&path, further, found),
            None => {
                found.push(path);
                &rest[end..]
            }
        };
    };
    loop {
        list = list.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if list.is_empty() || list.starts_with('}') {
            return list.get(1..).unwrap_or_default();
        }
        let after = follow(from, list, found);
        // Passes over `as NAME` and `*`.
        list = &after[after.find([',', '}']).unwrap_or(after.len())..];
    }
}

#[test]
fn paths_are_found_in_lists_and_from_the_parent() {
    let text = "use super::{a::{B, c}, d as e};\nuse crate::f;\nlet x = super::super::g::h(1);";
    let expected =
        ["crate::f", "crate::m::n::a::B", "crate::m::n::a::c", "crate::m::n::d", "crate::m::g::h"];
    assert_eq!(paths("m::n::o", text), expected);
    assert_eq!(paths("m::mod", "use super::a;"), ["crate::a"]);
}

/// Whatever the adapter decides, it decides in one place, in the order in which it was told.
#[test]
fn only_the_session_tells_the_adapters_core_anything() {
    none(said(&["core.handle("], &["mcp/src/"], &["mcp/src/session.rs"]));
}

#[test]
fn nothing_ticks() {
    none(said(&["time::interval", "interval_at(", "MissedTickBehavior"], PRODUCT, &[]));
}

#[test]
fn every_source_file_says_what_it_is_and_is_not_too_long() {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !text.starts_with("//! ") {
            findings.push(format!("{path} does not begin by saying what it is"));
        }
        let lines = text.lines().count();
        let allowed = LONG_FILES.iter().any(|(long, _)| *long == path);
        if lines > LINES_MAX && !allowed {
            findings.push(format!(
                "{path} has {lines} lines: split it by concept, or say in tidy.rs why not"
            ));
        }
        if lines <= LINES_MAX && allowed {
            findings.push(format!("{path} has {lines} lines and needs no exception any more"));
        }
    }
    none(findings);
}

#[test]
fn nothing_is_left_for_later_and_nothing_speaks_of_one_machine() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".toml", ".py", ".yml", ".json", "justfile", "/run"])
    {
        for (place, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                findings.push(format!("{path}:{} says {word}", place + 1));
            }
        }
    }
    none(findings);
}

/// A heading as a link names it.
fn slug(heading: &str) -> String {
    let kept =
        |character: &char| character.is_alphanumeric() || [' ', '-', '_'].contains(character);
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

/// A document's lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

#[test]
fn links_lead_somewhere() {
    let documents: BTreeMap<String, String> = files(&[".md"]).into_iter().collect();
    let anchors = |text: &str| -> BTreeSet<String> {
        prose(text)
            .filter(|line| line.starts_with('#'))
            .map(|line| slug(line.trim_start_matches('#')))
            .collect()
    };
    let mut findings = Vec::new();
    for (path, text) in &documents {
        let here = Path::new(path).parent().expect("a file lies in a directory");
        for line in prose(text) {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let full = if file.is_empty() { PathBuf::from(path) } else { here.join(file) };
                let Ok(full) = root().join(full).canonicalize() else {
                    findings.push(format!("{path} links to {target}, which does not exist"));
                    continue;
                };
                let relative = full
                    .strip_prefix(root().canonicalize().expect("the repository exists"))
                    .unwrap_or(&full);
                let known = documents.get(relative.to_str().unwrap_or_default());
                if !anchor.is_empty() && known.is_some_and(|text| !anchors(text).contains(anchor)) {
                    findings.push(format!("{path} links to {target}, which has no such heading"));
                }
            }
        }
    }
    none(findings);
}

/// Code and documents name documents by their path in the repository.
#[test]
fn documents_that_are_named_exist() {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".toml", ".py"]) {
        for line in text.lines() {
            for (start, _) in line.match_indices("docs/") {
                let rest = &line[start..];
                let stop =
                    |c: char| !(c.is_ascii_alphanumeric() || ['/', '.', '-', '_'].contains(&c));
                let name = &rest[..rest.find(stop).unwrap_or(rest.len())];
                let own = line[..start]
                    .chars()
                    .next_back()
                    .is_none_or(|before| [' ', '`', '(', '"'].contains(&before));
                if own && name.ends_with(".md") && !root().join(name).exists() {
                    findings.push(format!("{path} names {name}, which does not exist"));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let mut numbers: Vec<String> = files(&[".md"])
        .into_iter()
        .filter_map(|(path, _)| Some(path.strip_prefix("docs/adr/")?.get(..5)?.to_owned()))
        .filter(|start| start.as_bytes()[0].is_ascii_digit())
        .collect();
    numbers.sort();
    let expected: Vec<String> = (1..=numbers.len()).map(|number| format!("{number:04}-")).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn every_end_to_end_test_is_run() {
    let files: BTreeMap<String, String> = files(&[".rs", "Cargo.toml"]).into_iter().collect();
    let mut findings = Vec::new();
    for (dir, main) in [("e2e", "main"), ("clients", "main"), ("links", "main"), ("tidy", "tidy")] {
        let main = format!("tests/{dir}/{main}.rs");
        let entry = format!("path = \"{}\"", main.trim_start_matches("tests/"));
        if !files["tests/Cargo.toml"].contains(&entry) {
            findings.push(format!("{main} is in no [[test]]"));
        }
        let modules: BTreeSet<&str> = files[&main]
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
            .collect();
        for path in files.keys().filter(|path| **path != main) {
            let Some(file) = path.strip_prefix(&format!("tests/{dir}/")) else { continue };
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
            if !module.contains('/') && !modules.contains(module) {
                findings.push(format!("{path} is no module of {main}"));
            }
        }
    }
    none(findings);
}

/// `docs/clients.md` says what was observed of which version, and by which test, as `file::name`.
#[test]
fn every_observation_has_its_test() {
    let said = fs::read_to_string(root().join("docs/clients.md")).expect("read docs/clients.md");
    let named: BTreeSet<String> =
        said.split('`').filter(|word| word.contains("::")).map(str::to_owned).collect();
    let mut tests = BTreeSet::new();
    for (path, text) in files(&[".rs"]) {
        let Some(file) =
            path.strip_prefix("tests/clients/").and_then(|file| file.strip_suffix(".rs"))
        else {
            continue;
        };
        for test in text.split("#[test]\nfn ").skip(1) {
            tests.insert(format!("{file}::{}", test.split('(').next().unwrap_or_default()));
        }
    }
    none(
        named
            .difference(&tests)
            .map(|name| format!("docs/clients.md names {name}, which does not exist"))
            .collect(),
    );

    let pinned =
        fs::read_to_string(root().join("tests/clients/package.json")).expect("read package.json");
    let pinned: Value = serde_json::from_str(&pinned).expect("package.json is JSON");
    for version in pinned["dependencies"].as_object().expect("there are dependencies").values() {
        let version = version.as_str().expect("a version is a text");
        assert!(
            said.contains(&format!(" {version}\n")),
            "docs/clients.md has no section on version {version}"
        );
    }
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let bare = files(&["Cargo.toml"]).into_iter().filter(|(path, text)| {
        path != "Cargo.toml"
            && !text.contains("[lints]\nworkspace = true")
            && !path.starts_with("tests/fuzz/")
    });
    none(bare.map(|(path, _)| format!("{path} does not take the workspace's lints")).collect());
}
