//! `tidewire restore`: makes a data directory of a backup.

use tidewire_state::{BackedUp, DataDir, Location, restore};

use crate::arguments::RestoreOptions;
use crate::failure::Failure;

/// Returns when the data directory is whole.
pub fn run(options: &RestoreOptions) -> Result<(), Failure> {
    let from = Location::parse(&options.from)?;
    let to = Location::parse(&options.data_dir)?;
    let checkpoints = options.checkpoint_dir.as_deref().map(Location::parse).transpose()?;
    let Some(data_dir) = DataDir::open_in(&to, checkpoints.as_ref())? else {
        return Err(Failure::new("--data-dir of restore is a directory or s3://bucket/prefix"));
    };
    let BackedUp { place, checkpoint, n_files, n_bytes } = restore(&from, &data_dir)?;
    println!("restored checkpoint {checkpoint} of {place}: {n_files} files, {n_bytes} bytes");
    Ok(())
}
