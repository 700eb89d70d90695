//! What `status`, `doctor` and `daemon verify` say of each state in which a store may be: what is
//! true, with the right exit code and the next step. Who only looks changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use peer_tests::{Home, Outcome};
use redb::{Database, ReadableTable, TableDefinition};
use serde_json::{Value, json};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const MESSAGES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("messages");
const PENDING: TableDefinition<'_, (u128, u64), &[u8]> = TableDefinition::new("pending");

/// As a program wrote it that knew schema 1: with four messages and each kind of record.
const SCHEMA_1: &[u8] = include_bytes!("../../broker/src/store/tests/version_1.redb");

/// The exit code of a command, and what is to be found in all that it prints.
type Says = (i32, &'static [&'static str]);

/// A state of a store that no broker has open.
struct State {
    what: &'static str,
    make: fn(&Home),
    /// While no broker runs.
    doctor: Says,
    verify: Says,
    /// It starts a broker.
    status: Says,
    /// While that broker runs; nothing where none can.
    doctor_beside: Option<Says>,
}

const NO_BROKER: Says =
    (3, &["no broker is running at ", "; start it with `peerctl daemon start`"]);
const STARTABLE: &str = "none is running; one can start";
const ALL_WELL: Option<Says> = Some((0, &["no problems, "]));

const STATES: &[State] = &[
    State {
        what: "no directory at all",
        make: |_| {},
        doctor: (0, &[STARTABLE, "none yet; the first broker creates it", "no problems, "]),
        verify: (1, &["/peers.redb does not exist; the broker creates it when it first starts"]),
        status: (0, &["\nmessages      0 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "new and empty",
        make: |home| started_and_stopped(home),
        doctor: (0, &[STARTABLE, ", 0 messages, sound\n", "no problems, "]),
        verify: (
            0,
            &[
                ", schema 4, closed cleanly\n",
                "\nmessages    0, 0 ",
                "\nsound\n",
                "search index  none; ",
            ],
        ),
        status: (0, &["\nmessages      0 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "closed cleanly",
        make: |home| {
            two_messages(home);
            stop(home);
        },
        doctor: (0, &[STARTABLE, ", 2 messages, sound\n", "no problems, "]),
        verify: (
            0,
            &[
                ", schema 4, closed cleanly\n",
                "\nmessages    2, 2 ",
                "\ndeliveries  2 wait, 0 dead, ",
                "\nsound\n",
            ],
        ),
        status: (0, &["\nwaiting       2 stored, ", "\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "killed",
        make: |home| {
            two_messages(home);
            home.kill_broker();
        },
        doctor: (0, &[STARTABLE, ", 2 messages, sound\n", "no problems, "]),
        verify: (
            0,
            &[
                ", schema 4, not closed cleanly, which does no harm\n",
                "\nmessages    2, 2 ",
                "\nsound\n",
            ],
        ),
        status: (0, &["\nwaiting       2 stored, ", "\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "of schema 1",
        make: |home| put_database(home, SCHEMA_1),
        doctor: (0, &[STARTABLE, " messages, sound\n", "no problems, "]),
        verify: (0, &[", schema 1, closed cleanly\n", "\nsound\n"]),
        status: (0, &["\nwaiting       "]),
        doctor_beside: Some((0, &[])),
    },
    State {
        what: "with a search index",
        make: |home| {
            two_messages(home);
            indexed(home);
            stop(home);
        },
        doctor: (0, &[STARTABLE, ", 2 messages, sound\n", "no problems, "]),
        verify: (0, &["\nsearch index  2 entries\n", "\nsound\n"]),
        status: (0, &["\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "with a search index that the killed broker left",
        make: |home| {
            two_messages(home);
            indexed(home);
            home.kill_broker();
        },
        doctor: (0, &[STARTABLE, ", 2 messages, sound\n", "no problems, "]),
        verify: (0, &["\nsearch index  2 entries\n", "\nsound\n"]),
        status: (0, &["\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "with a damaged search index",
        make: |home| {
            two_messages(home);
            indexed(home);
            stop(home);
            damage_index(home);
        },
        // The next search throws it away: nobody need fix it.
        doctor: (0, &[STARTABLE, ", 2 messages, sound\n", "no problems, "]),
        verify: (
            1,
            &[
                "\nsearch index  0 entries, 1 files damaged\n",
                "the search index does not fit the database, which is sound; `peerctl daemon reindex` rebuilds it",
            ],
        ),
        status: (0, &["\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "with a damaged delivery",
        make: |home| {
            two_messages(home);
            stop(home);
            damage(home, PENDING);
        },
        doctor: (
            7,
            &[
                STARTABLE,
                "problems: 1; the first: the delivery of m-",
                "-> peerctl daemon verify\n",
            ],
        ),
        verify: (
            1,
            &[
                "\nthe delivery of m-",
                " cannot be read\n",
                "problems found in ",
                "; start the broker without",
            ],
        ),
        // The start reads what waits.
        status: (
            0,
            &["\ndead letters  1\n", "; 1 damaged record is left out, see `peerctl doctor`\n"],
        ),
        doctor_beside: Some((
            7,
            &[
                "damaged records that the broker leaves out: 1\n",
                "-> peerctl daemon stop && peerctl daemon verify\n",
            ],
        )),
    },
    State {
        what: "with a damaged message",
        make: |home| {
            two_messages(home);
            stop(home);
            damage(home, MESSAGES);
        },
        doctor: (
            7,
            &[STARTABLE, "problems: 1; the first: the message m-", "-> peerctl daemon verify\n"],
        ),
        verify: (
            1,
            &[
                "\nthe message m-",
                " cannot be read\n",
                "problems found in ",
                "; start the broker without",
            ],
        ),
        // Nobody has read it.
        status: (0, &["\nwaiting       2 stored, ", "\nmessages      2 in the store\n"]),
        doctor_beside: ALL_WELL,
    },
    State {
        what: "of a newer schema",
        make: |home| {
            two_messages(home);
            stop(home);
            of_schema(home, 99);
        },
        doctor: (
            7,
            &[
                "has schema 99 (written by peerctl 9.9 of the tests)",
                "-> install that version of peerctl or a newer one\n",
            ],
        ),
        verify: (
            1,
            &[
                "has schema 99 (written by peerctl 9.9 of the tests)",
                "; install that version of peerctl or a newer one\n",
            ],
        ),
        status: (
            3,
            &[
                "has schema 99 (written by peerctl 9.9 of the tests)",
                "; install that version of peerctl or a newer one\n",
            ],
        ),
        doctor_beside: None,
    },
    State {
        what: "a file that is no database",
        make: |home| put_database(home, b"hello"),
        doctor: (
            7,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "-> put a good copy in its place, or move it away",
            ],
        ),
        verify: (
            1,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "; put a good copy in its place, or move it away",
            ],
        ),
        status: (
            3,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "; put a good copy in its place, or move it away",
            ],
        ),
        doctor_beside: None,
    },
    State {
        what: "a longer file that is no database",
        make: |home| put_database(home, &[b'x'; 100_000]),
        doctor: (
            7,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "-> put a good copy in its place, or move it away",
            ],
        ),
        verify: (
            1,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "; put a good copy in its place, or move it away",
            ],
        ),
        status: (
            3,
            &[
                "peers.redb is not a database of peerd, or its beginning is damaged",
                "; put a good copy in its place, or move it away",
            ],
        ),
        doctor_beside: None,
    },
    State {
        what: "a database of another program",
        make: |home| {
            home.configure("");
            let other = Database::create(home.state().join("peers.redb")).expect("make a database");
            drop(other);
            set_mode(&home.state().join("peers.redb"), 0o600);
        },
        doctor: (
            7,
            &[
                "is a database of another program",
                "-> move it away, or set PEERD_DIR to another directory\n",
            ],
        ),
        verify: (
            1,
            &[
                "is a database of another program; move it away, or set PEERD_DIR to another directory\n",
            ],
        ),
        status: (
            3,
            &[
                "is a database of another program; move it away, or set PEERD_DIR to another directory\n",
            ],
        ),
        doctor_beside: None,
    },
    State {
        what: "an empty file",
        make: |home| put_database(home, b""),
        doctor: (
            7,
            &[
                "is empty, and a database of peerd never is",
                "-> put a copy from the backups directory",
            ],
        ),
        verify: (
            1,
            &["is empty, and a database of peerd never is; put a copy from the backups directory"],
        ),
        status: (
            3,
            &["is empty, and a database of peerd never is; put a copy from the backups directory"],
        ),
        doctor_beside: None,
    },
    State {
        what: "a file that others may read",
        make: |home| {
            two_messages(home);
            stop(home);
            set_mode(&home.state().join("peers.redb"), 0o640);
        },
        doctor: (7, &["peers.redb has mode 0640", "-> run `chmod 600` on it\n"]),
        verify: (
            1,
            &[
                "peers.redb has mode 0640, so that other users can read the mail in it; run `chmod 600` on it\n",
            ],
        ),
        status: (
            3,
            &[
                "peers.redb has mode 0640, so that other users can read the mail in it; run `chmod 600` on it\n",
            ],
        ),
        doctor_beside: None,
    },
    State {
        what: "a file that its user may not read",
        make: |home| {
            two_messages(home);
            stop(home);
            set_mode(&home.state().join("peers.redb"), 0o000);
        },
        doctor: (7, &["peers.redb", "Permission denied", "-> check "]),
        verify: (1, &["cannot open ", "peers.redb: Permission denied", "; check "]),
        status: (3, &["cannot open ", "peers.redb: Permission denied", "; check "]),
        doctor_beside: None,
    },
];

fn started_and_stopped(home: &Home) {
    let _ = home.peerctl(&["daemon", "start"]).success();
    stop(home);
}

fn stop(home: &Home) {
    let _ = home.peerctl(&["daemon", "stop"]).success();
}

fn two_messages(home: &Home) {
    for text in ["amber one", "amber two"] {
        let _ = home.peerctl(&["send", "human", "--", text]).success();
    }
}

fn indexed(home: &Home) {
    let found = home.peerctl(&["search", "amber", "--json"]).success().json();
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
}

fn put_database(home: &Home, bytes: &[u8]) {
    home.configure("");
    let path = home.state().join("peers.redb");
    fs::write(&path, bytes).expect("write a file");
    set_mode(&path, 0o600);
}

/// Changes a byte in the middle of the largest file of the index.
fn damage_index(home: &Home) {
    let files = fs::read_dir(home.state().join("search"))
        .expect("there is an index")
        .map(|entry| entry.expect("an entry"));
    let stored = files
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "store"));
    let path = stored.expect("an index has a file of what is stored");
    let mut bytes = fs::read(&path).expect("read a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("write a file");
}

/// Changes the last byte of the first record in a table.
fn damage<K: redb::Key + for<'key> redb::Value<SelfType<'key> = K> + 'static>(
    home: &Home,
    table: TableDefinition<'static, K, &'static [u8]>,
) {
    let database = Database::open(home.state().join("peers.redb")).expect("open the database");
    let writing = database.begin_write().expect("write to the database");
    {
        let mut table = writing.open_table(table).expect("it has that table");
        let (key, mut record) = {
            let (key, record) = table.first().expect("read the table").expect("it has a row");
            (key.value(), record.value().to_vec())
        };
        *record.last_mut().expect("a record has bytes") ^= 1;
        let _ = table.insert(key, record.as_slice()).expect("write to the table");
    }
    writing.commit().expect("write to the database");
}

fn of_schema(home: &Home, schema: u64) {
    let database = Database::open(home.state().join("peers.redb")).expect("open the database");
    let writing = database.begin_write().expect("write to the database");
    {
        let mut meta = writing.open_table(META).expect("it has that table");
        let _ = meta.insert("schema", schema.to_le_bytes().as_slice()).expect("write to the table");
        let _ =
            meta.insert("written_by", b"9.9 of the tests".as_slice()).expect("write to the table");
    }
    writing.commit().expect("write to the database");
}

/// Runs a command as a user has it who may not read what a mode forbids: root may read everything
/// else.
fn run(home: &Home, arguments: &[&str]) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return home.peerctl(arguments);
    }
    let plain = home.command(arguments);
    let mut command = Command::new("setpriv");
    command
        .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear();
    command
        .envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))))
        .current_dir(home.home());
    home.run(command, "")
}

/// Each file below a directory, with its mode and its bytes.
fn files(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return found,
        Err(why) => panic!("list {}: {why}", dir.display()),
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let about = fs::symlink_metadata(&path).expect("look at an entry");
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if about.is_dir() {
            found.extend(
                files(&path).into_iter().map(|(below, file)| (format!("{name}/{below}"), file)),
            );
            continue;
        }
        // A socket has none.
        let bytes =
            if about.is_file() { fs::read(&path).expect("read a file") } else { Vec::new() };
        found.insert(name, (about.permissions().mode(), bytes));
    }
    found
}

/// What is not as it should be in what a command said.
fn check(
    wrong: &mut Vec<String>,
    state: &str,
    home: &Home,
    arguments: &[&str],
    (code, parts): Says,
) {
    let outcome = run(home, arguments);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    let mut complain = |why: String| wrong.push(format!("{state}: {arguments:?}: {why}:\n{said}"));
    if outcome.code != code {
        complain(format!("exit code {} and not {code}", outcome.code));
    }
    for part in parts.iter().filter(|part| !said.contains(**part)) {
        complain(format!("no {part:?}"));
    }
    // The same for programs: a failure has its next step apart.
    let outcome = run(home, &[arguments, &["--json"]].concat());
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let mut complain =
        |why: &str| wrong.push(format!("{state}: {arguments:?} --json: {why}: {outcome:?}"));
    if outcome.code != code {
        complain("another exit code");
    }
    if (code == 0) != told["error"].is_null() {
        complain("an error, or none where there is one");
    }
    let step = told["error"]["hint"].as_str().unwrap_or_default();
    if code != 0
        && code != 7
        && (step.is_empty() || !outcome.stderr.trim_end().ends_with(&format!("; {step}")))
    {
        complain("the next step does not stand apart");
    }
}

#[test]
fn each_command_says_what_is_true_of_each_state_and_changes_nothing_by_looking() {
    let mut wrong = Vec::new();
    for State { what, make, doctor, verify, status, doctor_beside } in STATES {
        let home = peer_tests::home!();
        make(&home);
        let before = files(&home.state());
        for (arguments, says) in [
            (&["--no-start", "status"][..], NO_BROKER),
            (&["daemon", "status"], NO_BROKER),
            (&["doctor"], *doctor),
            (&["daemon", "verify"], *verify),
        ] {
            check(&mut wrong, what, &home, arguments, says);
            let after = files(&home.state());
            if after != before {
                let names = |files: &BTreeMap<String, _>| {
                    files.keys().cloned().collect::<Vec<_>>().join(" ")
                };
                wrong.push(format!(
                    "{what}: {arguments:?} changed {} to {}",
                    names(&before),
                    names(&after)
                ));
            }
        }
        check(&mut wrong, what, &home, &["status"], *status);
        let after = files(&home.state());
        if doctor_beside.is_none() && after.get("peers.redb") != before.get("peers.redb") {
            wrong.push(format!("{what}: the file was changed"));
        }
        match doctor_beside {
            Some(says) => check(&mut wrong, what, &home, &["doctor"], *says),
            None if home.broker_pid().is_some() => wrong.push(format!("{what}: a broker runs")),
            None => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_store_that_is_in_use_is_left_alone_and_its_broker_goes_on() {
    let home = peer_tests::home!();
    two_messages(&home);
    let broker = home.broker_pid();
    let mut wrong = Vec::new();
    for (arguments, says) in [
        (
            &["--no-start", "status"][..],
            (0, &["\nwaiting       2 stored, ", "\nmessages      2 in the store\n"][..]),
        ),
        (&["daemon", "status"], (0, &["\nmessages      2 in the store\n"])),
        (&["doctor"], (0, &["good  broker      version ", "no problems, "])),
        (
            &["daemon", "verify"],
            (
                1,
                &[
                    "peers.redb is open in another process; stop the broker first with `peerctl daemon stop`\n",
                ],
            ),
        ),
    ] {
        check(&mut wrong, "in use", &home, arguments, says);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(broker.is_some() && home.broker_pid() == broker);
    let _ = home.peerctl(&["send", "human", "--", "it goes on"]).success();
}

#[test]
fn a_store_of_schema_1_is_copied_once_and_verified_as_what_its_migration_makes_of_it() {
    let home = peer_tests::home!();
    put_database(&home, SCHEMA_1);
    let counts = |home: &Home| {
        let told = home.peerctl(&["daemon", "verify", "--json"]).success().json();
        let names = [
            "peers",
            "messages",
            "pending",
            "dead",
            "expired",
            "settled",
            "channels",
            "questions",
            "tasks",
            "notes",
        ];
        (told["schema"].clone(), names.map(|name| told[name].clone()))
    };
    let before = counts(&home);
    assert_eq!(before.0, json!(1));
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(status["messages"]["total"], before.1[1], "{status}");
    stop(&home);
    assert_eq!(counts(&home).0, json!(4));
    let copies: Vec<_> = fs::read_dir(home.state().join("backups"))
        .expect("there are copies")
        .map(|copy| copy.expect("a copy").path())
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(fs::read(&copies[0]).expect("read the copy"), SCHEMA_1);
}
