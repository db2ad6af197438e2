//! Pictures of people.

use super::{Database, Error};
use crate::auth::session::Millis;

/// Somebody's picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Avatar {
    pub info: AvatarInfo,
    pub bytes: Vec<u8>,
}

/// What there is to know of a picture without seeing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvatarInfo {
    pub media_type: String,
    pub updated_at: Millis,
}

impl Database {
    /// Keeps a picture of a user, in the place of an earlier one. `false`: there is no such user.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn put_avatar(&self, user: &str, avatar: &Avatar) -> Result<bool, Error> {
        let put = self.pool.sql(
            "INSERT INTO avatars (user_id, media_type, picture, updated_at) \
             SELECT id, $2, $3, $4 FROM users WHERE id = $1 \
             ON CONFLICT (user_id) DO UPDATE SET media_type = excluded.media_type, \
             picture = excluded.picture, updated_at = excluded.updated_at RETURNING user_id",
        );
        let put = put
            .bind(user)
            .bind(&avatar.info.media_type)
            .bind(&avatar.bytes)
            .bind(avatar.info.updated_at.cast_signed());
        Ok(!self.pool.write(put).await?.is_empty())
    }

    /// A user's picture.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn avatar(&self, user: &str) -> Result<Option<Avatar>, Error> {
        let look = self
            .pool
            .sql("SELECT media_type, updated_at, picture FROM avatars WHERE user_id = $1");
        let rows = self.pool.read(look.bind(user)).await?;
        let read = |row: &super::sql::Row| -> Result<Avatar, sqlx::Error> {
            Ok(Avatar {
                info: read_info(row)?,
                bytes: row.get("picture")?,
            })
        };
        Ok(rows.first().map(read).transpose()?)
    }

    /// Whether a user has a picture, and of what kind.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn avatar_info(&self, user: &str) -> Result<Option<AvatarInfo>, Error> {
        let look = self
            .pool
            .sql("SELECT media_type, updated_at FROM avatars WHERE user_id = $1");
        let rows = self.pool.read(look.bind(user)).await?;
        Ok(rows.first().map(read_info).transpose()?)
    }

    /// Drops a user's picture; tells whether there was one.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn delete_avatar(&self, user: &str) -> Result<bool, Error> {
        let drop = self
            .pool
            .sql("DELETE FROM avatars WHERE user_id = $1 RETURNING user_id");
        Ok(!self.pool.write(drop.bind(user)).await?.is_empty())
    }
}

fn read_info(row: &super::sql::Row) -> Result<AvatarInfo, sqlx::Error> {
    let updated_at: i64 = row.get("updated_at")?;
    Ok(AvatarInfo {
        media_type: row.get("media_type")?,
        updated_at: updated_at.cast_unsigned(),
    })
}
