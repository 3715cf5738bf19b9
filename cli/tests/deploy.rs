//! What stands in `deploy/` for others to run says what this program understands.

mod support;

use std::path::Path;
use std::process::Command;

use support::instance::{binary, shown};

/// Loads the DAG with a stand-in for Airflow, and prints the command of each task in the order of the arrows.
const LOADER: &str = r#"
import sys, types

commands = []

class Task:
    def __init__(self, task_id, bash_command, **more):
        assert set(more) == {"env", "append_env"}, more
        commands.append(bash_command)
        self.task_id, self.follows = task_id, None
    def __rshift__(self, other):
        other.follows = self.task_id
        return other

class DAG:
    def __init__(self, dag_id, **more):
        self.dag_id, self.more = dag_id, more
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass

airflow = types.ModuleType("airflow")
airflow.DAG = DAG
bash = types.ModuleType("airflow.operators.bash")
bash.BashOperator = Task
sys.modules.update({"airflow": airflow, "airflow.operators": types.ModuleType("airflow.operators"), "airflow.operators.bash": bash})
space = {}
with open(sys.argv[1]) as file:
    exec(compile(file.read(), sys.argv[1], "exec"), space)
assert space["dag"].more["catchup"] is False and space["dag"].more["max_active_runs"] == 1
assert (space["compact"].follows, space["verify"].follows) == ("archive", "compact")
print("\n".join(commands))
"#;

#[test]
fn the_dag_loads_and_its_commands_are_commands() {
    let dag = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/airflow/watershed_lake.py");
    let output = Command::new("python3").args(["-c", LOADER]).arg(&dag).output().expect("python3 starts");
    assert!(output.status.success(), "{}", shown(&output));
    let commands = String::from_utf8(output.stdout).expect("text");
    assert_eq!(commands.lines().count(), 3, "{commands}");
    for command in commands.lines() {
        let arguments = command.strip_prefix("exec watershed ").unwrap_or_else(|| panic!("{command}"));
        // Arguments are read from left to right: a wrong one is an error before --help is reached.
        let output = Command::new(binary()).args(arguments.split(' ')).arg("--help").output().expect("the binary starts");
        assert!(output.status.success(), "{command}: {}", shown(&output));
    }
}
