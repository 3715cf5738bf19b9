//! Reads every tree that a server printed into its log (`scripts/trees.sh` makes such a log) and says how many are read whole, what is not known, and
//! where the walk misses something. With a folder: writes the trees of statements that begin with a comment into files of that name.

#[path = "../tests/audit/mod.rs"]
mod audit;

use pgtree::Limits;
use pgtree::tree::{self, Command, TreeError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// One message of the log about a tree.
#[derive(Default)]
struct Printed {
    tree: String,
    statement: String,
    /// Printed while a function ran, not of the statement itself.
    within: bool,
}

#[derive(Default)]
struct Figures {
    selects: usize,
    whole: usize,
    others: usize,
    rewritten: usize,
    /// By what went wrong: how often, and one statement.
    troubles: BTreeMap<String, (usize, String)>,
}

impl Figures {
    fn trouble(&mut self, what: String, statement: &str) {
        self.troubles.entry(what).or_insert_with(|| (0, statement.to_owned())).0 += 1;
    }

    fn see(&mut self, printed: &Printed) {
        let statement = &printed.statement;
        // CREATE and the like hold the parser's own nodes, which nobody reads back.
        match printed.tree.strip_prefix("({QUERY :commandType ") {
            None => return self.rewritten += 1,
            Some(rest) if !rest.starts_with("1 ") => return self.others += 1,
            Some(_) => {}
        }
        let query = match tree::parse(&printed.tree, Limits::default()) {
            Ok(query) if query.command == Command::Select => query,
            Ok(_) => return self.others += 1,
            Err(TreeError::NotOne(_)) => return self.rewritten += 1,
            Err(e) => {
                self.selects += 1;
                return self.trouble(format!("cannot be read: {e}"), statement);
            }
        };
        self.selects += 1;
        let unknown = audit::unknown(&query);
        let missed = audit::missed(&printed.tree, &query);
        self.whole += usize::from(unknown.is_empty() && missed.is_empty());
        unknown.into_iter().for_each(|name| self.trouble(format!("not known: {name}"), statement));
        missed.into_iter().for_each(|(what, count)| self.trouble(format!("missed {count} times: {what}"), statement));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let log = arguments.next().ok_or("usage: trees LOG [FOLDER]")?;
    let folder = arguments.next();
    let mut figures = Figures::default();
    let mut current: Option<Printed> = None;
    // Which part of a message goes on in lines that begin with a tab.
    let mut part = "";
    let mut reader = BufReader::new(File::open(log)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let ended = reader.read_until(b'\n', &mut line)? == 0;
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if let (Some(rest), Some(printed)) = (text.strip_prefix('\t'), &mut current) {
            match part {
                "DETAIL" => printed.tree.extend(["\n", rest]),
                "STATEMENT" => printed.statement.extend(["\n", rest]),
                _ => {}
            }
            continue;
        }
        let (name, rest) = text.split_once(":  ").unwrap_or(("", ""));
        match (name, &mut current) {
            ("DETAIL", Some(printed)) => (part, printed.tree) = ("DETAIL", rest.to_owned()),
            ("STATEMENT", Some(printed)) => (part, printed.statement) = ("STATEMENT", rest.to_owned()),
            ("CONTEXT", Some(printed)) => (part, printed.within) = ("CONTEXT", true),
            _ => {
                if let Some(printed) = current.take() {
                    figures.see(&printed);
                    if let Some(folder) = &folder {
                        keep(&printed, Path::new(folder))?;
                    }
                }
                if text == "LOG:  rewritten parse tree:" {
                    current = Some(Printed::default());
                }
            }
        }
        if ended {
            break;
        }
    }
    println!(
        "{} trees of SELECTs, {} read whole ({:.3} %); {} of other statements; {} rewritten to none or several",
        figures.selects,
        figures.whole,
        100.0 * figures.whole as f64 / figures.selects.max(1) as f64,
        figures.others,
        figures.rewritten
    );
    for (what, (count, statement)) in &figures.troubles {
        println!("{count:6}  {what}\n        {}", statement.chars().take(300).collect::<String>().replace('\n', " "));
    }
    if figures.troubles.is_empty() { Ok(()) } else { Err("not every tree was read whole".into()) }
}

/// Keeps the tree of a statement that begins with a name in a comment.
fn keep(printed: &Printed, folder: &Path) -> std::io::Result<()> {
    let named = printed.statement.strip_prefix("/* ").and_then(|rest| rest.split_once(" */ "));
    let Some((name, statement)) = named.filter(|_| !printed.within) else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let statement = statement.trim_end_matches(';').replace('\n', " ");
    std::fs::write(folder.join(format!("{name}.tree")), format!("-- {statement}\n{}\n", printed.tree.trim_end()))
}
