//! The enishi program.

mod args;
mod client;
mod commands;
mod data_dir;
mod demo;
mod gateway;
mod output;
mod password;
mod problem;
mod svg;
mod text;
mod up;

use std::env;
use std::process::ExitCode;

use args::{Arguments, Command};
use client::Client;
use commands::{Context, DaemonCommand};
use output::Output;
use problem::{Problem, Verdict};
use text::Language;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let out = Output {
        json: arguments.global.json,
        language: arguments
            .global
            .lang
            .unwrap_or_else(Language::of_environment),
    };
    match dispatch(arguments, out) {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Err(problem) => {
            out.problem(&problem);
            ExitCode::from(problem.exit_code())
        }
    }
}

fn dispatch(arguments: Arguments, out: Output) -> Result<Verdict, Problem> {
    let data = data_dir::choose(arguments.global.data);
    let command = match arguments.command {
        Command::Up(options) => return up::run(&out, data, options),
        Command::Demo(options) => return demo::run(&out, &options),
        Command::Sim(options) => return commands::sim::run(&out, &options),
        Command::Completions { shell } => return commands::completions::run(&out, shell),
        Command::ResolverGuard { file, server } => {
            // Nobody reads what it would say.
            return Ok(match enishi_host::dns::guard::run(&file, server) {
                Ok(()) => Verdict::Yes,
                Err(_) => Verdict::No,
            });
        }
        Command::PacGuard => {
            // Nobody reads what it would say.
            return Ok(match enishi_proxy::pac::guard::run() {
                Ok(()) => Verdict::Yes,
                Err(_) => Verdict::No,
            });
        }
        Command::Down => DaemonCommand::Down,
        Command::Status => DaemonCommand::Status,
        Command::Peers => DaemonCommand::Peers,
        Command::Invite => DaemonCommand::Invite,
        Command::Overlay(command) => {
            match commands::closed::without_daemon(&out, &data, &command) {
                Some(done) => return done,
                None => DaemonCommand::Overlay(command),
            }
        }
        Command::Channel(command) => DaemonCommand::Channel(command),
        Command::Resolve { name } => DaemonCommand::Resolve(name),
        Command::Proxy(options) => DaemonCommand::Proxy(options),
        Command::Turn(command) => DaemonCommand::Turn(command),
        Command::Forward(command) => DaemonCommand::Forward(command),
        Command::Gateway(command) => DaemonCommand::Gateway(command),
        Command::Ping(options) => DaemonCommand::Ping(options),
        Command::Trace(options) => DaemonCommand::Trace(options),
        Command::Route(command) => DaemonCommand::Route(command),
        Command::Verify(options) => DaemonCommand::Verify(options),
        Command::Doctor { part } => DaemonCommand::Doctor(part),
        Command::Dht(command) => DaemonCommand::Dht(command),
        Command::Connect(options) => DaemonCommand::Connect(options),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::No(format!("The program cannot wait for sockets: {error}.")))?;
    let cx = Context {
        client: Client::new(data, out),
        out,
    };
    let verdict = runtime.block_on(commands::run(&cx, command));
    // A thread may still wait for standard input, which nobody needs any more.
    runtime.shutdown_background();
    verdict
}

/// Ends a run whose command line is not understood, or which only asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && env::args_os().any(|word| word == "--json") {
        let message = error.render().to_string();
        let problem = Problem::Usage(message.trim_end().to_owned());
        let out = Output {
            json: true,
            language: Language::default(),
        };
        out.problem(&problem);
        return ExitCode::from(problem.exit_code());
    }
    // Nothing is left to be done if the reader has gone away.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
