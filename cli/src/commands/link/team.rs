//! `peerctl link team` and `link find`: teams of machines on one NATS server.
//!
//! Knows a team's files and what is said of it. Does not know how frames are carried. Invariants: a
//! secret is written to files that only this user can read, and printed by `invite` and `rekey`
//! alone. A command that reports success has reached the server.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use peer_client::Endpoint;
use peer_link::file::{self, TeamTarget};
use peer_link::served::{self, State};
use peer_link::team::{
    self, Here, MeetError, SecretError, TeamError, TeamKey, TeamToken, is_team_name,
    without_password,
};
use peer_proto::ids::BrokerId;
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use super::{caller, process};
use crate::error::Failure;
use crate::output::{Output, cell, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl link team new blue --nats tls://nats.example:4222 --creds me.creds
                                               make a team, and be its first member
  peerctl link team invite blue                print the token for another machine
  peerctl link team join TOKEN --creds me.creds
                                               on that machine: join with it
  peerctl link start                           on both: serve the team from now on
  peerctl link team ls                         how the connection to the server is
  peerctl link ls                              the machines of the team, as links

The server stores only what is sealed for one machine. The token holds the
team's key: give it to members alone. Mail of a member waits until you release
it; `peerctl link set NAME accept` delivers it at once.";

/// A team of machines on one NATS server
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TeamCommand,
}

#[derive(Debug, clap::Args)]
struct Server {
    /// A file of credentials for the server (JWT and nkey)
    #[arg(long, value_name = "FILE")]
    creds: Option<PathBuf>,
    /// A certificate of the authority that signed the server's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Deliver mail of members that are met for the first time without asking
    #[arg(long)]
    accept: bool,
}

#[derive(Debug, Subcommand)]
enum TeamCommand {
    /// Make a team on a server, and join it
    New {
        /// The team: lower-case letters, digits and `-`
        team: String,
        /// The server, as tls://HOST:4222; a cluster has several, with commas
        #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
        nats: Vec<String>,
        /// Allow a connection without TLS to another machine
        #[arg(long)]
        insecure: bool,
        /// Credentials that may make the stream and the directory, if those of --creds may not
        #[arg(long, value_name = "FILE")]
        admin_creds: Option<PathBuf>,
        #[command(flatten)]
        server: Server,
    },
    /// Print the token that brings another machine into a team; it is a secret
    Invite {
        /// The team
        team: String,
    },
    /// Join a team, or take its new key
    Join {
        /// What `link team invite` printed
        token: String,
        /// Another address of the server than the token has
        #[arg(long, value_name = "URL", value_delimiter = ',')]
        nats: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Give a team a new key, and print its token; the old key counts until it is dropped
    Rekey {
        /// The team
        team: String,
        /// Drop the old key: members that have not joined with the new token are shut out
        #[arg(long)]
        drop_former: bool,
    },
    /// Print what the server's admin allows this machine
    Permissions {
        /// The team
        team: String,
    },
    /// List the teams
    Ls,
    /// Leave a team; its machines stay as links until `link rm`
    Rm {
        /// The team
        team: String,
    },
}

/// A team.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TeamRow {
    team: String,
    /// The addresses of the server, without passwords.
    nats: Vec<String>,
    /// How the connection to the server is: `up`, `connecting`, `down`, `refused`, or `off` if no
    /// process serves it.
    state: &'static str,
    /// Since when.
    since: Option<String>,
    /// Members that were heard of, other than this machine.
    members: u64,
    /// Whether an old key still counts.
    former_key: bool,
    /// Why it is down, or what was refused last.
    error: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Invitation {
    team: String,
    /// A secret.
    token: String,
}

/// What the server's admin allows this machine.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Allowed {
    team: String,
    /// This broker.
    broker: String,
    /// A block of the server's configuration, for this machine's user.
    permissions: String,
}

/// A machine in a team's directory.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FoundMachine {
    name: String,
    broker: String,
    team: String,
    /// The version of its `peerctl`.
    version: String,
    /// When it wrote its card, by its clock.
    written_at: String,
    /// Whether it is this machine.
    own: bool,
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        let hint = error.hint();
        Self::wrong(error.to_string()).hint(hint)
    }
}

impl From<TeamError> for Failure {
    fn from(error: TeamError) -> Self {
        let hint = error.hint();
        let failure = match &error {
            TeamError::Address(_) => Self::usage(error.to_string()),
            _ => Self::wrong(error.to_string()),
        };
        // What is tried again by the process of links is not by a command.
        if error.is_final() || matches!(error, TeamError::Unreachable { .. }) {
            failure.hint(hint)
        } else {
            failure
        }
    }
}

pub(super) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    match args.command {
        TeamCommand::New { team, nats, insecure, admin_creds, server } => {
            let target = target(nats, insecure, server)?;
            new(output, endpoint, &team, target, admin_creds).await
        }
        TeamCommand::Invite { team } => invite(output, endpoint, &team),
        TeamCommand::Join { token, nats, server } => {
            join(output, endpoint, &token, nats, server).await
        }
        TeamCommand::Rekey { team, drop_former } => rekey(output, endpoint, &team, drop_former),
        TeamCommand::Permissions { team } => {
            known(endpoint, &team)?;
            let broker = caller(endpoint).await?.own;
            let permissions = team::permissions(&team, broker);
            if output.json {
                return output.json(&Allowed { team, broker: broker.to_string(), permissions });
            }
            output.line(&permissions)
        }
        TeamCommand::Ls => list(output, endpoint, None),
        TeamCommand::Rm { team } => {
            let target = known(endpoint, &team)?;
            file::remove_team(endpoint.location.dir(), &team)?;
            process::reload(&endpoint.location);
            for key in [Some(target.key), target.former_key].into_iter().flatten() {
                let _ = std::fs::remove_file(endpoint.location.dir().join(key));
            }
            list(output, endpoint, None)
        }
    }
}

fn target(nats: Vec<String>, insecure: bool, server: Server) -> Result<TeamTarget, Failure> {
    for url in &nats {
        team::check_address(url)?;
    }
    let Server { creds, ca, accept } = server;
    // A path of the shell's directory would lead elsewhere from the process of links.
    let absolute = |path: Option<PathBuf>| {
        path.map(|path| {
            std::path::absolute(&path).map_err(|error| Failure::file("finding", &path, error))
        })
        .transpose()
    };
    let (creds, ca) = (absolute(creds)?, absolute(ca)?);
    Ok(TeamTarget { nats, key: PathBuf::new(), former_key: None, creds, ca, insecure, accept })
}

fn known(endpoint: &Endpoint, team: &str) -> Result<TeamTarget, Failure> {
    let mut teams = file::read(endpoint.location.dir())?.team;
    teams.remove(team).ok_or_else(|| {
        Failure::not_found("unknown_team", format!("no team is called {team:?}"))
            .hint("`peerctl link team ls` lists them")
    })
}

async fn new(
    output: &Output,
    endpoint: &Endpoint,
    team: &str,
    mut target: TeamTarget,
    admin: Option<PathBuf>,
) -> Result<(), Failure> {
    if !is_team_name(team) {
        return Err(Failure::usage(format!("{:?} cannot be a team's name", single_line(team)))
            .hint("use 1 to 32 lower-case letters, digits and `-`"));
    }
    let caller = caller(endpoint).await?;
    let dir = endpoint.location.dir();
    let before = file::read(dir)?.team.remove(team);
    let is_new = before.is_none();
    if let Some(before) = before {
        // Its key stays: the command is repeated after the admin has made what was missing.
        (target.key, target.former_key) = (before.key, before.former_key);
    } else {
        let key = TeamKey::draw().map_err(|error| Failure::wrong(error.to_string()))?;
        target.key = team::key_file(team, &key);
        team::write_key(&dir.join(&target.key), &key)?;
    }
    file::put_team(dir, team, &target)?;
    let settings = team::settings(&caller, team, &target)?;
    if let Some(admin) = &admin {
        team::check_creds(admin)?;
    }
    let version = match team::make(&settings, admin.as_ref()).await {
        Ok(version) => version,
        Err(error) => {
            // Where an admin must act first, the team stays: its permissions can be printed, and the
            // command be repeated.
            if is_new && !matches!(error, TeamError::Denied(_) | TeamError::Missing(_)) {
                file::remove_team(dir, team)?;
                let _ = std::fs::remove_file(dir.join(&target.key));
            }
            return Err(error.into());
        }
    };
    let is_served = process::reload(&endpoint.location);
    if output.json {
        return list(output, endpoint, Some(team));
    }
    let text = format!(
        "{team} is ready on {}, NATS {version}; this broker is {}\n\
         the server's admin can keep members apart; for this machine's user:\n\n{}\n\n\
         another machine joins so:\n  \
         peerctl link team invite {team}     # here: prints a token, which is a secret\n  \
         peerctl link team join TOKEN        # there\n{}",
        shown(&target).join(","),
        caller.own,
        team::permissions(team, caller.own),
        closing(&target, is_served),
    );
    output.line(&text)
}

fn closing(target: &TeamTarget, is_served: bool) -> String {
    let mut text = String::new();
    let _ = match target.accept {
        true => writeln!(text, "mail of its members is delivered without asking you"),
        false => writeln!(
            text,
            "mail of its members waits until you release it; `peerctl link set NAME accept` changes that for one"
        ),
    };
    let _ = match is_served {
        true => write!(text, "the team is served; `peerctl link team ls` shows how it is"),
        false => write!(text, "`peerctl link start` serves the team"),
    };
    text
}

fn shown(target: &TeamTarget) -> Vec<String> {
    target.nats.iter().map(|url| without_password(url)).collect()
}

fn tell_token(output: &Output, team: &str, token: String) -> Result<(), Failure> {
    if output.json {
        return output.json(&Invitation { team: team.to_owned(), token });
    }
    output.line(&token)?;
    output.remark(&format!(
        "the token is a secret: who has it and may use the server is a member of {team}"
    ));
    output.remark(
        "on the other machine: `peerctl link team join TOKEN`, with credentials of its own",
    );
    Ok(())
}

fn token(endpoint: &Endpoint, team: &str, target: &TeamTarget) -> Result<String, Failure> {
    let key = team::read_key(&endpoint.location.dir().join(&target.key))?;
    let (team, urls) = (team.to_owned(), shown(target));
    Ok(TeamToken { team, urls, insecure: target.insecure, key }.to_string())
}

fn invite(output: &Output, endpoint: &Endpoint, team: &str) -> Result<(), Failure> {
    let target = known(endpoint, team)?;
    tell_token(output, team, token(endpoint, team, &target)?)
}

async fn join(
    output: &Output,
    endpoint: &Endpoint,
    text: &str,
    nats: Vec<String>,
    server: Server,
) -> Result<(), Failure> {
    let token: TeamToken = text.parse().map_err(|error: peer_link::team::NotAToken| {
        Failure::usage(error.to_string())
            .hint("`peerctl link team invite TEAM` on a member prints it")
    })?;
    let TeamToken { team, urls, insecure, key } = token;
    if !is_team_name(&team) {
        return Err(Failure::usage("the token names no team"));
    }
    let caller = caller(endpoint).await?;
    let dir = endpoint.location.dir();
    let mut target = target(if nats.is_empty() { urls } else { nats.clone() }, insecure, server)?;
    target.key = team::key_file(&team, &key);
    if let Some(before) = file::read(dir)?.team.remove(&team) {
        // Members that have the former key only are understood until it is dropped.
        target.former_key = (before.key != target.key).then_some(before.key).or(before.former_key);
        target.creds = target.creds.or(before.creds);
        target.ca = target.ca.or(before.ca);
        target.accept |= before.accept;
        if nats.is_empty() {
            // The token has no password.
            target.nats = before.nats;
        }
    }
    team::write_key(&dir.join(&target.key), &key)?;
    let settings = team::settings(&caller, &team, &target)?;
    let visit = team::visit(settings).await?;
    let (members, unread) = visit.members().await?;
    drop(visit);
    file::put_team(dir, &team, &target)?;
    let is_served = process::reload(&endpoint.location);
    if unread > 0 && members.is_empty() {
        output.remark(
            "the directory has cards, and this key opens none of them: ask a member for the present token",
        );
    }
    if output.json {
        return list(output, endpoint, Some(&team));
    }
    output.line(&format!(
        "this machine is in {team} now, as {}; members in the directory: {}\n{}",
        caller.own,
        members.len(),
        closing(&target, is_served)
    ))
}

fn rekey(
    output: &Output,
    endpoint: &Endpoint,
    team: &str,
    drop_former: bool,
) -> Result<(), Failure> {
    let mut target = known(endpoint, team)?;
    let dir = endpoint.location.dir();
    let dropped = target.former_key.take();
    if drop_former {
        file::put_team(dir, team, &target)?;
    } else {
        let key = TeamKey::draw().map_err(|error| Failure::wrong(error.to_string()))?;
        let file = team::key_file(team, &key);
        team::write_key(&dir.join(&file), &key)?;
        target.former_key = Some(std::mem::replace(&mut target.key, file));
        file::put_team(dir, team, &target)?;
    }
    process::reload(&endpoint.location);
    if let Some(dropped) = dropped {
        let _ = std::fs::remove_file(dir.join(dropped));
    }
    if drop_former {
        return list(output, endpoint, Some(team));
    }
    tell_token(output, team, token(endpoint, team, &target)?)?;
    output.remark(&format!(
        "the old key counts until `peerctl link team rekey {team} --drop-former` on each member; who is to leave needs their credentials revoked as well"
    ));
    Ok(())
}

fn list(output: &Output, endpoint: &Endpoint, only: Option<&str>) -> Result<(), Failure> {
    let mut teams = file::read(endpoint.location.dir())?.team;
    teams.retain(|team, _| only.is_none_or(|only| only == team));
    let served = served::look(&endpoint.location);
    let row = |(team, target): (&String, &TeamTarget)| {
        let seen = served.as_ref().and_then(|served| served.teams.get(team));
        let of_team = |served: &served::Served| {
            served.members.values().filter(|member| member.team == *team).count() as u64
        };
        TeamRow {
            team: team.clone(),
            nats: shown(target),
            state: seen.map_or("off", |seen| seen.state.as_str()),
            since: seen.map(|seen| rfc3339(seen.since)),
            members: served.as_ref().map_or(0, of_team),
            former_key: target.former_key.is_some(),
            error: seen.and_then(|seen| seen.error.clone()),
        }
    };
    let rows: Vec<TeamRow> = teams.iter().map(row).collect();
    if output.json {
        return output.json(&rows);
    }
    let cells = |row: &TeamRow| {
        vec![
            cell(&row.team),
            row.state.to_owned(),
            row.members.to_string(),
            cell(&row.nats.join(",")),
            cell(row.error.as_deref().unwrap_or("-")),
        ]
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    output.table(
        &["TEAM", "STATE", "MEMBERS", "SERVER", "ERROR"],
        &cells,
        "no teams; `peerctl link team new TEAM --nats URL` makes one",
    )?;
    if served.is_none() && !rows.is_empty() {
        output.remark("no process serves the teams; `peerctl link start` starts one");
    }
    Ok(())
}

/// Looks in the directories of all teams.
pub(super) async fn find(output: &Output, endpoint: &Endpoint, text: &str) -> Result<(), Failure> {
    let caller = caller(endpoint).await?;
    let wanted = text.to_lowercase();
    let mut rows = Vec::new();
    let mut failed = None;
    for (team, target) in file::read(endpoint.location.dir())?.team {
        let looked = async {
            let visit = team::visit(team::settings(&caller, &team, &target)?).await?;
            Ok::<_, Failure>(visit.members().await?.0)
        };
        match looked.await {
            Ok(members) => rows.extend(members.into_iter().map(|(id, card)| FoundMachine {
                name: card.name,
                broker: id.to_string(),
                team: team.clone(),
                version: card.software,
                written_at: rfc3339(card.written_at),
                own: id == caller.own,
            })),
            Err(error) => failed = Some(error),
        }
    }
    // What one team's directory has is told though another's cannot be reached.
    if let Some(error) = failed {
        if rows.is_empty() {
            return Err(error);
        }
        output.failure(&error);
    }
    rows.retain(|row| {
        row.name.to_lowercase().contains(&wanted) || row.broker.to_lowercase().contains(&wanted)
    });
    if output.json {
        return output.json(&rows);
    }
    let cells = |row: &FoundMachine| {
        vec![
            cell(&row.name),
            if row.own { format!("{} (this machine)", row.broker) } else { row.broker.clone() },
            cell(&row.team),
            cell(&row.version),
            row.written_at.clone(),
        ]
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    output.table(&["NAME", "BROKER", "TEAM", "VERSION", "CARD OF"], &cells, "nobody was found")
}

/// Asks a member of any team whether it is there. `None`: no team's directory has it.
pub(super) async fn probe(
    endpoint: &Endpoint,
    broker: BrokerId,
) -> Result<Option<Result<Here, MeetError>>, Failure> {
    let caller = caller(endpoint).await?;
    let mut failed = None;
    for (team, target) in file::read(endpoint.location.dir())?.team {
        let looked = async {
            let visit = team::visit(team::settings(&caller, &team, &target)?).await?;
            let (members, _) = visit.members().await?;
            let Some((_, card)) = members.into_iter().find(|(id, _)| *id == broker) else {
                return Ok::<_, Failure>(None);
            };
            Ok(Some(visit.probe(broker, card.public).await))
        };
        match looked.await {
            Ok(None) => {}
            Ok(answer) => return Ok(answer),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Checks the teams for `peerctl doctor`: one line for each that is not well.
pub(crate) fn unwell(endpoint: &Endpoint) -> Vec<(String, String, String)> {
    let dir = endpoint.location.dir();
    let Ok(file) = file::read(dir) else { return Vec::new() };
    let served = served::look(&endpoint.location);
    let mut found = Vec::new();
    for (team, target) in &file.team {
        let keys = [Some(&target.key), target.former_key.as_ref()];
        for key in keys.into_iter().flatten() {
            if let Err(error) = team::read_key(&dir.join(key)) {
                found.push((
                    error.to_string(),
                    "a key that only you can read".to_owned(),
                    error.hint(),
                ));
            }
        }
        if let Some(creds) = &target.creds
            && let Err(error) = team::check_creds(&dir.join(creds))
        {
            let expected = "credentials that only you can read".to_owned();
            found.push((error.to_string(), expected, error.hint()));
        }
        let seen = served.as_ref().and_then(|served| served.teams.get(team));
        if let Some(seen) = seen.filter(|seen| matches!(seen.state, State::Down | State::Refused)) {
            let why = seen.error.as_deref().unwrap_or("for an unknown reason");
            found.push((
                format!("team {team} is not connected: {}", single_line(why)),
                "a connection to its server; mail waits for it".to_owned(),
                "peerctl link team ls".to_owned(),
            ));
        }
    }
    found
}

/// A member that answered, for `link test`.
pub(super) fn tested(here: &Here, took_ms: u64, link: &str, broker: BrokerId) -> String {
    format!(
        "{} answers: {broker}, peerctl {}, in {took_ms} ms",
        cell(link),
        single_line(&here.software)
    )
}
