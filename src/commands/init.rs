//! `faultbox init`: a first spec, and a workflow that runs it.
//!
//! Contract: writes new files and changes none.

use crate::cli::{Ci, InitArgs};
use crate::exit_code;
use crate::init;
use crate::terminal::{notice, quoted, say};
use std::io::Write;
use std::path::Path;

/// The workflow's place in a repository.
const WORKFLOW: &str = ".github/workflows/faultbox.yml";

/// Runs the command.
pub fn run(args: &InitArgs) -> u8 {
    match try_run(args) {
        Ok(()) => exit_code::OK,
        Err(why) => {
            notice(&format!("faultbox: {why}"));
            exit_code::USAGE
        }
    }
}

fn try_run(args: &InitArgs) -> Result<(), String> {
    if args.from.is_none() && args.ci.is_none() {
        return Err(
            "out of what? Name an executable, a compose file or a descriptor set, or give --ci github"
                .to_owned(),
        );
    }
    let spec = args.spec.display().to_string();
    if let Some(from) = &args.from {
        let shown = from.display();
        let content = std::fs::read(from).map_err(|error| format!("{shown}: {error}"))?;
        let stem = from.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = from_spec(from, &args.spec);
        let text =
            init::spec(&content, &path, &name, args.port).map_err(|error| format!("{shown}: {error}"))?;
        create(&args.spec, &text)?;
        say(&format!("{spec}: run it with: faultbox test {}", quoted(&spec)));
        if text.contains("image = ") {
            say("without a container engine: add --embedded");
        }
    }
    if args.ci == Some(Ci::Github) {
        let path = Path::new(WORKFLOW);
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        create(path, &init::GITHUB.replace("{{spec}}", &quoted(&spec)))?;
        say(&format!("{WORKFLOW}: set the repository's variables FAULTBOX_GIT and FAULTBOX_VERSION"));
    }
    Ok(())
}

/// How a spec names a file: from its own folder where the file is in it.
fn from_spec(file: &Path, spec: &Path) -> String {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, spec) = (whole(file), whole(spec));
    let below = spec.parent().and_then(|folder| file.strip_prefix(folder).ok());
    below.map_or_else(|| file.display().to_string(), |below| format!("./{}", below.display()))
}

fn create(path: &Path, text: &str) -> Result<(), String> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}
