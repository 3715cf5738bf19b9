//! Which days should leave a table, and why. Pure: facts and the date in, steps out. Days count from 1970-01-01, UTC.

/// What is known of a table when its retention is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first day that has a partition of its own, or had; earlier rows stand together.
    pub first_day: i32,
    /// The last day that has a partition.
    pub last_day: i32,
    /// PostgreSQL holds every row from this day on; `None`: nothing was ever dropped.
    pub floor: Option<i32>,
    /// No store shows rows before this day.
    pub lake_floor: Option<i32>,
    /// The windows: how many days before today either store keeps.
    pub hot_days: Option<i32>,
    pub lake_days: Option<i32>,
    /// The oldest day of which the lake has rows.
    pub oldest: Option<i32>,
    /// There are late rows that the lake has as well.
    pub late_archived: bool,
    /// There are late rows before the lake's floor, which nobody sees.
    pub late_expired: bool,
    /// Why room is needed on PostgreSQL's disk, if it is.
    pub pressed: Option<String>,
    /// Days before today that stay in PostgreSQL whatever the disk says.
    pub keep_days: i32,
}

/// One change, made in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// PostgreSQL drops its rows before this day.
    RaiseFloor { to: i32, reason: String },
    /// Rows before this day are gone for everybody.
    RaiseLakeFloor { to: i32, reason: String },
    /// Late rows that were archived leave PostgreSQL.
    ForgetLate,
    /// Late rows that nobody sees leave PostgreSQL.
    DropExpired,
}

/// See the module. Steps are to be taken in order; one that fails stops those behind it.
pub fn plan(facts: &Facts, today: i32) -> Vec<Step> {
    let mut steps = Vec::new();
    let hot = facts.hot_days.map(|n| (today - n, format!("PostgreSQL keeps {n} days")));
    let lake = facts.lake_days.map(|n| (today - n, format!("rows are kept {n} days")));
    // Rows leave the lake only after PostgreSQL: without anything that old, nothing needs to leave either.
    let expires = lake.as_ref().filter(|(to, _)| facts.floor.is_some() || facts.oldest.is_some_and(|oldest| oldest < *to));
    let mut floor = facts.floor;
    let mut raise = |floor: &mut Option<i32>, target: i32, reason: &str| {
        // Never today, whose rows are just coming; never beyond the days that there are.
        let target = target.min(facts.last_day).min(today);
        let mut next = floor.map_or(facts.first_day, |f| f + 1);
        while next <= target {
            steps.push(Step::RaiseFloor { to: next, reason: reason.to_owned() });
            *floor = Some(next);
            next += 1;
        }
    };
    if let Some((to, reason)) = &hot {
        raise(&mut floor, *to, reason);
    }
    if let Some((to, reason)) = expires {
        // What is older than the first day is in one part and goes as a whole.
        let to = if floor.is_none() { (*to).max(facts.first_day) } else { *to };
        raise(&mut floor, to, reason);
    }
    if let Some(reason) = &facts.pressed {
        // One day at a time: then the disk is measured again.
        let next = floor.map_or(facts.first_day, |f| f + 1);
        if next <= today - facts.keep_days.max(1) {
            raise(&mut floor, next, reason);
        }
    }
    if let Some((to, reason)) = expires
        && floor.is_some_and(|f| f >= *to)
        && facts.lake_floor.is_none_or(|l| l < *to)
    {
        steps.push(Step::RaiseLakeFloor { to: *to, reason: reason.clone() });
    }
    if facts.late_archived {
        steps.push(Step::ForgetLate);
    }
    if facts.late_expired {
        steps.push(Step::DropExpired);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: i32 = 20_000;

    fn facts() -> Facts {
        Facts { first_day: TODAY - 40, last_day: TODAY + 60, oldest: Some(TODAY - 400), keep_days: 3, ..Facts::default() }
    }

    fn floors(steps: &[Step]) -> Vec<i32> {
        steps.iter().filter_map(|s| match s { Step::RaiseFloor { to, .. } => Some(TODAY - to), _ => None }).collect()
    }

    #[test]
    fn without_windows_and_pressure_nothing_leaves() {
        assert_eq!(plan(&facts(), TODAY), []);
    }

    #[test]
    fn the_hot_window_goes_day_by_day_and_begins_with_what_is_older_than_all_days() {
        let steps = plan(&Facts { hot_days: Some(37), ..facts() }, TODAY);
        assert_eq!(floors(&steps), [40, 39, 38, 37]);
        let steps = plan(&Facts { hot_days: Some(37), floor: Some(TODAY - 38), ..facts() }, TODAY);
        assert_eq!(floors(&steps), [37]);
        assert_eq!(plan(&Facts { hot_days: Some(41), ..facts() }, TODAY), [], "the oldest part is not split");
    }

    #[test]
    fn the_lake_expires_only_what_postgresql_has_dropped() {
        let steps = plan(&Facts { lake_days: Some(100), ..facts() }, TODAY);
        assert_eq!(floors(&steps), [40]);
        assert!(matches!(steps.last(), Some(Step::RaiseLakeFloor { to, .. }) if *to == TODAY - 100));
        let young = Facts { lake_days: Some(100), oldest: Some(TODAY - 50), ..facts() };
        assert_eq!(plan(&young, TODAY), [], "nothing is that old");
        let steps = plan(&Facts { lake_days: Some(38), hot_days: Some(39), ..facts() }, TODAY);
        assert_eq!(floors(&steps), [40, 39, 38]);
    }

    #[test]
    fn pressure_takes_one_day_and_leaves_the_last_ones() {
        let pressed = |floor| Facts { pressed: Some("the disk is nearly full".into()), floor, ..facts() };
        assert_eq!(floors(&plan(&pressed(None), TODAY)), [40]);
        assert_eq!(floors(&plan(&pressed(Some(TODAY - 4)), TODAY)), [3]);
        assert_eq!(plan(&pressed(Some(TODAY - 3)), TODAY), []);
    }

    #[test]
    fn no_plan_goes_beyond_today_or_the_days_there_are() {
        let f = Facts { hot_days: Some(1), last_day: TODAY - 20, ..facts() };
        assert_eq!(floors(&plan(&f, TODAY)).last(), Some(&20));
    }
}
