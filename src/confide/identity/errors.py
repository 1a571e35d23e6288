"""Expected errors of users, tokens and logins."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class TwoCredentials(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "two-credentials"
    sentence = "The request has two credentials. Send one."


class NoToken(ServiceError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "no-token"
    sentence = "Authentication is required. Send a token as `Authorization: Bearer …`."


class InvalidToken(ServiceError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "invalid-token"
    sentence = "Token is invalid or expired. Log in again or create a new token."


class LoginFailed(ServiceError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "login-failed"
    sentence = "Wrong login or password. Check both and try again."


class RateLimited(ServiceError):
    kind = ErrorKind.RATE_LIMITED
    code = "rate-limited"
    sentence = "Too many failed logins. Wait before the next attempt."


class UserExists(ServiceError):
    kind = ErrorKind.CONFLICT
    code = "user-exists"
    sentence = "A user with this login already exists. Choose another login."


class LastAdmin(ServiceError):
    kind = ErrorKind.CONFLICT
    code = "last-admin"
    sentence = "The last admin cannot be removed, disabled or demoted. Add another admin first."


class InvalidLogin(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "invalid-login"
    sentence = (
        "Invalid login. Use an e-mail address, or 1 to 64 characters of a-z 0-9 . _ - that start and end with a letter"
        " or digit."
    )


class InvalidGrant(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "invalid-grant"
    sentence = (
        "Invalid grant. Use a role and two patterns: an exact name, a prefix followed by *, or *; admin needs * and *."
    )


class PasswordTooShort(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "password-too-short"
    sentence = "The password is too short. Choose a longer one."


class PasswordTooLong(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "password-too-long"
    sentence = "The password is longer than 256 characters. Choose a shorter one."


class PasswordCommon(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "password-common"
    sentence = "The password is too common. Choose one that is hard to guess."


class PasswordMissing(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "password-missing"
    sentence = "The first user needs a password to log in. Send one."
