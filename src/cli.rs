//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use faultbox_engine::plan::RUNS_MAX;
use std::path::PathBuf;

/// What follows every `--help` of the whole command.
const AFTER: &str = "\
Exit codes:
  0  test: every cell as expected; replay: exact
  1  test: a cell failed; replay: another verdict than the recorded one; diff: they differ
  2  the command line or the spec is wrong
  3  test: inconclusive; replay: same verdict, but something diverged
  4  the host lacks something, or a service did not start; doctor: not everything works
  5  the bundle cannot be written or read";

/// Deterministic record and replay for fault injection into microservices.
#[derive(Debug, Parser)]
#[command(name = "faultbox", version, after_help = AFTER, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a spec: every scenario under every fault
    Test(TestArgs),
    /// Drive recorded cells again, without their environment
    Replay(ReplayArgs),
    /// Record cells twice and write what services make up anew into the spec's side file
    Learn(LearnArgs),
    /// Start what a spec declares, without its tests, and leave it running until Ctrl-C
    Up(UpArgs),
    /// Show what a bundle holds
    Inspect(InspectArgs),
    /// Write a bundle as one HTML file that needs nothing else
    Report {
        /// The bundle
        bundle: PathBuf,
        /// Where the page goes; without it NAME.html beside the bundle
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Say what differs between two bundles
    Diff {
        /// The one bundle
        a: PathBuf,
        /// The other
        b: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value = "human")]
        format: DiffFormat,
    },
    /// Write what a bundle holds in a form that other tools read
    Export(ExportArgs),
    /// Check every byte of a bundle
    Verify {
        /// The bundle
        bundle: PathBuf,
    },
    /// Write what is whole in a damaged or unfinished bundle as a finished one
    Recover {
        /// The bundle (of a killed run: its .partial file)
        bundle: PathBuf,
        /// Where the new bundle goes; without it NAME.recovered.fb beside the old one
        #[arg(long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Say what of Faultbox works on this host, and what would enable the rest
    Doctor {
        /// How to print
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
    /// Pin the images of a spec in faultbox.lock beside it
    Lock {
        /// The spec
        spec: PathBuf,
        /// The folder whose files the spec may read, above the spec; without it the spec's own
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
    },
    /// Remove every container that Faultbox has made, and say what it was
    Clean,
    /// Write a first spec out of an executable, a compose file or a descriptor set
    Init(InitArgs),
    /// Make `git diff` show what bundles mean (in the repository of this folder)
    GitSetup,
    /// Print a shell's completions of this command
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of this command
    Man {
        /// The folder that they go to
        folder: PathBuf,
    },
    /// Print the help of a command, or of a word of the spec language
    Help {
        /// A command (`test`) or a word of the language (`expect_retries`); without it all commands
        name: Option<String>,
    },
    /// Run a local executable for the engine.
    #[command(name = "__launch", hide = true)]
    Launch,
    /// Be a stand-in.
    #[command(name = "__standin", hide = true)]
    StandIn(StandInArgs),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON document on stdout.
    Json,
}

/// How differences are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// For people.
    #[value(alias = "text")]
    Human,
    /// One JSON document on stdout.
    Json,
    /// For a comment in a review.
    Markdown,
    /// A page that needs nothing else.
    Html,
}

/// How a bundle is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InspectFormat {
    /// For people.
    Human,
    /// One JSON document on stdout.
    Json,
    /// For a comment in a review.
    Markdown,
    /// The same for every recording that means the same: for git diff. What cannot be read is said in it.
    Text,
}

/// The forms of other tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Results as JUnit XML.
    Junit,
    /// Results for GitHub Actions: annotations on stdout, the job summary (Markdown) to --output or
    /// $GITHUB_STEP_SUMMARY.
    Github,
    /// Exchanges over HTTP as HAR 1.2.
    Har,
    /// All exchanges as TCP streams for Wireshark; encoded again, addresses made up.
    Pcapng,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The form
    #[arg(value_enum)]
    pub format: ExportFormat,
    /// The bundle
    pub bundle: PathBuf,
    /// Of exchanges, only those of this cell
    pub cell: Option<String>,
    /// Where it goes; without it stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// CI systems that `init` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ci {
    /// GitHub Actions.
    Github,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// An executable, a compose file, or what protoc --descriptor_set_out wrote
    pub from: Option<PathBuf>,
    /// Where the spec goes
    #[arg(long, value_name = "FILE", default_value = "faultbox.star")]
    pub spec: PathBuf,
    /// The port on which an executable answers HTTP
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Write a workflow that runs the spec, too
    #[arg(long, value_enum)]
    pub ci: Option<Ci>,
}

/// What `test`, `learn` and `up` start, and from what.
#[derive(Debug, Args)]
pub struct StackArgs {
    /// The spec
    pub spec: PathBuf,
    /// Seed of every decision; without it a fresh one is drawn and printed
    #[arg(long)]
    pub seed: Option<u64>,
    /// The folder whose files the spec may read, above the spec; without it the spec's own
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Run stand-ins instead of containers (mysql, redis and kafka images)
    #[arg(long)]
    pub embedded: bool,
    /// Set an environment variable of a service; repeatable
    #[arg(long = "env", value_name = "SERVICE:KEY=VALUE")]
    pub env: Vec<String>,
    /// Run another executable for a service; repeatable
    #[arg(long = "binary", value_name = "SERVICE=PATH")]
    pub binary: Vec<String>,
    /// An image that is not the one in faultbox.lock is an error
    #[arg(long, conflicts_with = "embedded")]
    pub locked: bool,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// What is started
    #[command(flatten)]
    pub stack: StackArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// Arguments of `learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// What is started
    #[command(flatten)]
    pub stack: StackArgs,
    /// Only these cells: names, globs (matrix_*_db_down) or /regular expressions/; repeatable
    #[arg(long = "test", value_name = "CELL")]
    pub tests: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// What is started
    #[command(flatten)]
    pub stack: StackArgs,
    /// Only these cells: names, globs (matrix_*_db_down) or /regular expressions/; repeatable
    #[arg(long = "test", value_name = "CELL")]
    pub tests: Vec<String>,
    /// Run each cell so many times, as CELL@1, CELL@2 and so on, each with other choices out of the seed, and say which
    /// did not come out the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RUNS_MAX)))]
    pub runs: Option<u32>,
    /// Print the names of the cells and stop
    #[arg(long)]
    pub list: bool,
    /// Load and check the spec, print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Write the bundle here; without it run-TIME-SEED.fb in $FAULTBOX_BUNDLE_DIR, else in this folder
    #[arg(long, value_name = "PATH", conflicts_with = "no_bundle")]
    pub bundle: Option<PathBuf>,
    /// Write no bundle
    #[arg(long)]
    pub no_bundle: bool,
    /// Keep local executables in the bundle even if every cell passes
    #[arg(long)]
    pub embed: bool,
    /// Keep no executable in the bundle, even if a cell fails: only its digest
    #[arg(long, conflicts_with = "embed")]
    pub no_embed: bool,
    /// Keep the containers of reuse = True services for the next run, which then starts faster
    #[arg(long, conflicts_with = "embedded")]
    pub keep: bool,
    /// With --embedded, skip the time for which all services and Faultbox itself only wait, and say how much
    #[arg(long)]
    pub virtual_time: bool,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Fail on reds that are not in this file, and on cells of it that pass; not on the reds in it
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write the reds of this run as a baseline; they do not fail it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["baseline", "tests"])]
    pub write_baseline: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// Cells at once; this version runs one at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1))]
    pub jobs: u32,
}

/// How much of a recording runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// Nothing: the spec judges the recorded steps again
    Judge,
    /// The service under test; every other service is served from the bundle
    Redrive,
    /// Everything, stand-ins and mocks too
    Rerun,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The bundle
    pub bundle: PathBuf,
    /// Only these cells: names, globs (matrix_*_db_down) or /regular expressions/; repeatable
    #[arg(long = "test", value_name = "CELL")]
    pub tests: Vec<String>,
    /// The seed of the recording; another one is an error
    #[arg(long)]
    pub seed: Option<u64>,
    /// What runs again
    #[arg(long, value_enum, default_value = "redrive")]
    pub depth: Depth,
    /// Drive another executable (or image) of a service against the recording; repeatable
    #[arg(long = "with", value_name = "SERVICE=PATH")]
    pub with: Vec<String>,
    /// Set an environment variable of a service, over the recorded ones; repeatable
    #[arg(long = "env", value_name = "SERVICE:KEY=VALUE")]
    pub env: Vec<String>,
    /// Judge by this spec instead of the recorded one
    #[arg(long, value_name = "PATH")]
    pub spec: Option<PathBuf>,
    /// Wait before this step of the cell, counted from 0, with the service running: for a debugger
    #[arg(long, value_name = "STEP")]
    pub hold: Option<u32>,
    /// Sit through recorded delays only where they decide what happens, and say what was skipped
    #[arg(long)]
    pub no_wait: bool,
    /// Skip the time for which every service under test and Faultbox itself only wait, and say how much
    #[arg(long)]
    pub virtual_time: bool,
    /// Collapse nothing in the comparison
    #[arg(long)]
    pub strict: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The bundle
    pub bundle: PathBuf,
    /// One cell in detail; without it all of them, with the story of each failure
    pub cell: Option<String>,
    /// Lay out in this folder what the bundle holds: spec tree, executables, logs, how it was recorded
    #[arg(long, value_name = "FOLDER", conflicts_with = "cell")]
    pub extract: Option<PathBuf>,
    /// Only what the index says: cells, verdicts, digests; of a finished bundle nothing else is read
    #[arg(long, conflicts_with_all = ["cell", "extract"])]
    pub manifest: bool,
    /// List what was redacted and where
    #[arg(long, conflicts_with_all = ["cell", "extract", "manifest"])]
    pub secrets: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "human")]
    pub format: InspectFormat,
}

/// Arguments of the hidden `__standin`.
#[derive(Debug, Args)]
pub struct StandInArgs {
    /// Its kind.
    pub kind: String,
    /// Port on loopback.
    #[arg(long)]
    pub port: u16,
    /// Data directory.
    #[arg(long)]
    pub data: PathBuf,
    /// Control socket.
    #[arg(long)]
    pub control: PathBuf,
}
