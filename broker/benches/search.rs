//! Searching a million messages, against SQLite's FTS5 on the same corpus, in one run.
//!
//! `cargo bench -p peer-broker --bench search -- [MESSAGES] [DIRECTORY]`. Needs `python3` with its
//! `sqlite3`, which plays FTS5. Both make the same things for the same queries: the best ten with a
//! snippet, and the count of all. The queries of all kinds come in random order, each to both sides
//! in random order. The corpus comes from a seed: words with the frequencies of Zipf's law, in
//! messages of a few to two hundred words.

#![allow(clippy::print_stdout, reason = "a bench's output is its purpose")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Instant;

use peer_broker::search::LocalIndex;
use peer_broker::store::Store;
use peer_core::record::{Brief, DeliveryRecord, MessageHead, MessageRecord};
use peer_core::step::{Change, Search};
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use peer_proto::search::SearchQuery;

const SEED: u64 = 20_261_121;
const VOCABULARY: usize = 100_000;
const QUERIES_PER_KIND: usize = 60;
const ROUNDS: usize = 3;

/// The other side: a line with a query in, a line with nanoseconds and the count out.
const FTS5: &str = r#"
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=normal"); db.execute("pragma cache_size=-65536")
db.execute("create virtual table m using fts5(text, tokenize='unicode61')")
begun = time.perf_counter()
with db, open(sys.argv[2], encoding="utf-8") as corpus:
    db.executemany("insert into m(rowid, text) values (?, ?)", ((n, line.rstrip("\n")) for n, line in enumerate(corpus, 1)))
loaded = time.perf_counter()
with db: db.execute("insert into m(m) values ('optimize')")
print(sqlite3.sqlite_version, round(loaded - begun, 1), round(time.perf_counter() - loaded, 1), flush=True)
for line in sys.stdin:
    query = line.rstrip("\n")
    begun = time.perf_counter_ns()
    rows = db.execute("select rowid, snippet(m, 0, '[', ']', '...', 24) from m where m match ? order by rank limit 10", (query,)).fetchall()
    total = db.execute("select count(*) from m where m match ?", (query,)).fetchone()[0]
    print(time.perf_counter_ns() - begun, total, flush=True)
"#;

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Words of made-up syllables, most frequent first, and how often each comes.
struct Language {
    words: Vec<String>,
    /// The sum of the weights up to each word.
    weights: Vec<f64>,
}

impl Language {
    fn new(dice: &mut Dice) -> Self {
        let syllables: Vec<String> = "bcdfghjklmnprstvz"
            .chars()
            .flat_map(|c| "aeiou".chars().map(move |v| format!("{c}{v}")))
            .collect();
        let mut words = Vec::with_capacity(VOCABULARY);
        let mut known = std::collections::BTreeSet::new();
        while words.len() < VOCABULARY {
            let mut word = String::new();
            for _ in 0..1 + dice.below(4) {
                word.push_str(&syllables[dice.below(syllables.len())]);
            }
            if known.insert(word.clone()) {
                words.push(word);
            }
        }
        let mut sum = 0.0;
        let weights = (1..=VOCABULARY)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { words, weights }
    }

    fn word(&self, dice: &mut Dice) -> usize {
        let at = dice.fraction() * self.weights[VOCABULARY - 1];
        self.weights.partition_point(|sum| *sum < at).min(VOCABULARY - 1)
    }

    fn text(&self, dice: &mut Dice) -> String {
        // Mostly short, some long.
        let length = 4 + (dice.fraction().powi(3) * 196.0) as usize;
        let mut text = String::new();
        for place in 0..length {
            let separator = if place == 0 { "" } else { " " };
            let _ = write!(text, "{separator}{}", self.words[self.word(dice)]);
        }
        text
    }
}

fn sent(number: u64, text: String) -> [Change; 2] {
    let at = Timestamp(1_795_000_000_000 + number);
    let (from, to) = (PeerId(2 + number % 20), PeerId(2 + (number / 20) % 20));
    let head = MessageHead {
        id: MessageId::first_at(at),
        from: Sender {
            peer: from,
            name: format!("peer-{from}"),
            client: "claude".into(),
            cwd: "/w".into(),
            via: Via::Session,
        },
        to: vec![(to, format!("peer-{to}"))],
        intent: Intent::Request,
        kind: Kind::Message,
        thread: format!("t-{}", number / 50),
        channel: None,
        reply_to: None,
        sent_at: at,
        expires_at: None,
        sources: Vec::new(),
        text_bytes: text.len() as u32,
        private: false,
        origin: None,
    };
    let entry = |event| TraceEntry { event, at, carrier: None, cause: None };
    let delivery = DeliveryRecord {
        message: head.id,
        peer: to,
        stage: Stage::Presented,
        attempts: 0,
        acked_at: None,
        answered_by: None,
        trace: vec![
            entry(TraceEvent::Stored),
            entry(TraceEvent::Offered),
            entry(TraceEvent::Presented),
        ],
        brief: Brief::of(&head),
        rev: 2,
        relay: None,
    };
    let message = MessageRecord { head, idempotency_key: None, text };
    [
        Change::PutMessage(Box::new(message)),
        Change::PutDelivery { record: Box::new(delivery), was: None },
    ]
}

/// What is looked for, by kind; the other side writes it a little differently.
struct Asked {
    kind: usize,
    ours: String,
    theirs: String,
}

const KINDS: [&str; 5] = ["rare word", "common word", "two words", "phrase", "prefix"];

fn queries(language: &Language, texts: &[String], dice: &mut Dice) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut add = |kind: usize, words: &[&str], ours: String| {
        let theirs = match kind {
            3 => format!("\"{}\"", words.join(" ")),
            4 => format!("\"{}\" *", words[0]),
            _ => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" "),
        };
        asked.push(Asked { kind, ours, theirs });
    };
    for _ in 0..QUERIES_PER_KIND {
        let rare = &language.words[20_000 + dice.below(60_000)];
        add(0, &[rare], rare.clone());
        let common = &language.words[dice.below(50)];
        add(1, &[common], common.clone());
        let pair = (&language.words[dice.below(1_000)], &language.words[dice.below(5_000)]);
        add(2, &[pair.0, pair.1], format!("{} {}", pair.0, pair.1));
        let words: Vec<&str> = loop {
            let words: Vec<&str> = texts[dice.below(texts.len())].split(' ').collect();
            if words.len() > 8 {
                break words;
            }
        };
        let at = dice.below(words.len() - 3);
        let phrase = &words[at..at + 2 + dice.below(2)];
        add(3, phrase, format!("\"{}\"", phrase.join(" ")));
        let begun = &language.words[1_000 + dice.below(50_000)];
        let begun = &begun[..begun.len().min(5)];
        add(4, &[begun], format!("{begun}*"));
    }
    asked
}

fn search(text: &str) -> Search {
    let query = SearchQuery { text: text.into(), limit: 10, ..SearchQuery::default() };
    Search {
        query,
        seen_by: None,
        direct: true,
        channels: Vec::new(),
        open_channels: Vec::new(),
        peers: Vec::new(),
    }
}

fn main() {
    // Cargo adds `--bench`; without it this is a test run, where there is nothing to measure.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let mut given = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let count: usize =
        given.next().map_or(1_000_000, |count| count.parse().expect("a number of messages"));
    let room = tempfile::tempdir().expect("a temporary directory");
    let dir = given.next().map_or_else(|| room.path().to_owned(), PathBuf::from);
    let mut dice = Dice(SEED);
    let language = Language::new(&mut dice);

    let begun = Instant::now();
    let mut store = Store::open(&dir.join("peers.redb"), &dir.join("backups")).expect("a store");
    let corpus = dir.join("corpus.txt");
    let mut file = BufWriter::new(File::create(&corpus).expect("a file for the corpus"));
    let (mut samples, mut text_bytes, mut changes) = (Vec::new(), 0, Vec::new());
    for number in 1..=count as u64 {
        let text = language.text(&mut dice);
        writeln!(file, "{text}").expect("room for the corpus");
        text_bytes += text.len();
        if number % 97 == 0 {
            samples.push(text.clone());
        }
        changes.extend(sent(number, text));
        if changes.len() >= 20_000 || number == count as u64 {
            store.commit(&changes).expect("a commit");
            changes.clear();
        }
    }
    file.flush().expect("room for the corpus");
    println!(
        "{count} messages, {} MB of texts, stored in {:.1} s (seed {SEED})",
        text_bytes / 1_000_000,
        begun.elapsed().as_secs_f64()
    );

    let asked = queries(&language, &samples, &mut dice);
    let snapshots = store.snapshots();
    let begun = Instant::now();
    let mut index = LocalIndex::open(&dir.join("search"), &snapshots.take().expect("a snapshot"))
        .expect("an index");
    index.catch_up(&snapshots, || false).expect("an index of everything");
    let indexed = begun.elapsed().as_secs_f64();
    index.merge().expect("a merged index");
    let bytes: u64 = fs::read_dir(dir.join("search"))
        .expect("the index")
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!(
        "peerd: indexed in {indexed:.1} s ({:.0} a second), merged after {:.1} s, {} MB on the disk, {}",
        count as f64 / indexed,
        begun.elapsed().as_secs_f64() - indexed,
        bytes / 1_000_000,
        memory()
    );

    let (mut to_fts5, mut from_fts5, mut child) = fts5(&dir, &corpus);
    let mut line = String::new();
    from_fts5.read_line(&mut line).expect("a word from FTS5");
    let told: Vec<&str> = line.split_whitespace().collect();
    let fts5_bytes = fs::metadata(dir.join("fts5.db")).map_or(0, |file| file.len());
    println!(
        "SQLite {}: loaded in {} s, optimized after {} s, {} MB on the disk",
        told[0],
        told[1],
        told[2],
        fts5_bytes / 1_000_000
    );

    let mut times: Vec<[Vec<u64>; 2]> = KINDS.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    let mut totals: Vec<Vec<u64>> = vec![Vec::new(); KINDS.len()];
    for round in 0..=ROUNDS {
        let mut order: Vec<usize> = (0..asked.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, dice.below(last + 1));
        }
        for place in order {
            let query = &asked[place];
            let mut sides = [0, 1];
            sides.rotate_left(dice.below(2));
            let mut found = [0; 2];
            for side in sides {
                let ns = if side == 0 {
                    let begun = Instant::now();
                    let (_, total) = index
                        .find(&snapshots.take().unwrap(), &search(&query.ours), Timestamp(0))
                        .expect("an answer");
                    found[0] = total;
                    begun.elapsed().as_nanos() as u64
                } else {
                    writeln!(to_fts5, "{}", query.theirs).expect("a question to FTS5");
                    line.clear();
                    from_fts5.read_line(&mut line).expect("an answer from FTS5");
                    let mut numbers = line
                        .split_whitespace()
                        .map(|number| number.parse::<u64>().expect("numbers from FTS5"));
                    let ns = numbers.next().expect("a time");
                    found[1] = numbers.next().expect("a count");
                    ns
                };
                // The first round warms both.
                if round > 0 {
                    times[query.kind][side].push(ns);
                }
            }
            assert_eq!(found[0], found[1], "both find the same of {}", query.ours);
            totals[query.kind].push(found[0]);
        }
    }
    drop(to_fts5);
    child.wait().expect("the end of FTS5");
    println!(
        "{:<12} {:>9} {:>12} {:>12} {:>12} {:>12} {:>7}",
        "p50 / p95", "found", "peerd µs", "", "FTS5 µs", "", "ratio"
    );
    for (kind, name) in KINDS.iter().enumerate() {
        let at = |side: usize, share: f64| {
            let mut sorted = times[kind][side].clone();
            sorted.sort_unstable();
            sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1_000.0
        };
        totals[kind].sort_unstable();
        println!(
            "{name:<12} {:>9} {:>12.1} {:>12.1} {:>12.1} {:>12.1} {:>7.2}",
            totals[kind][totals[kind].len() / 2],
            at(0, 0.5),
            at(0, 0.95),
            at(1, 0.5),
            at(1, 0.95),
            at(0, 0.5) / at(1, 0.5)
        );
    }
    println!("{}", memory());
}

fn fts5(
    dir: &Path,
    corpus: &Path,
) -> (ChildStdin, BufReader<std::process::ChildStdout>, std::process::Child) {
    let mut command = Command::new("python3");
    command
        .arg("-c")
        .arg(FTS5)
        .arg(dir.join("fts5.db"))
        .arg(corpus)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3 with sqlite3");
    (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()), child)
}

/// Memory of this process that no file stands behind.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .map(|line| line.split_whitespace().nth(1).unwrap_or("?").to_owned())
    };
    format!("anonymous memory {} kB", line("RssAnon:").unwrap_or_else(|| "?".into()))
}
